"""Train Qwen2.5-VL by a plain `Trainer`, in any number of processes: the model holds its geometry supervision.

python examples/supervise_with_trainer.py
torchrun --nproc_per_node 2 examples/supervise_with_trainer.py --cpu
"""

import argparse
import logging
from pathlib import Path

from supervise_any_model import RoomCollator, build_tiny, list_texts
from transformers import Trainer, TrainingArguments, set_seed

from processing.rooms import load_rooms
from trainer import GeometrySupervision
from trainer.processes import leave_processes

logger = logging.getLogger("supervise")


def main(words: list[str] | None = None) -> None:
    """Train with supervision, detach it, save the model."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=8, help="rooms to train on")
    parser.add_argument("--steps", type=int, default=20, help="steps of the training")
    parser.add_argument("--output", type=Path, default=Path("outputs/supervised_trainer"), help="folder of the model")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")
    options = parser.parse_args(words)
    arguments = TrainingArguments(
        output_dir=str(options.output / "run"),
        max_steps=options.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        learning_rate=2e-3,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=options.cpu,
    )
    set_seed(0)
    with arguments.main_process_first(desc="rendering rooms"):
        rooms = load_rooms("train", options.rooms, image_size=112, num_frames=4)
    model, processor = build_tiny(list_texts(rooms))

    supervision = GeometrySupervision.attach(model, validator="light")
    supervision.join(model)
    trainer = Trainer(model, arguments, train_dataset=rooms, data_collator=RoomCollator(processor))
    trainer.train()
    supervision.detach()

    trainer.save_model(str(options.output))
    logger.info("Saved %s without a trace of the supervision to %s", type(model).__name__, options.output)


if __name__ == "__main__":
    main()
    leave_processes()
