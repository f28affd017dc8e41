"""Fine-tune Qwen2.5-VL by the `SFTTrainer` of TRL, with geometry supervision beside its loss.

pip install trl
python examples/supervise_with_trl.py
torchrun --nproc_per_node 2 examples/supervise_with_trl.py --cpu
"""

import argparse
import logging
from pathlib import Path

from supervise_any_model import RoomCollator, build_tiny, list_texts
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from processing.rooms import load_rooms
from trainer import GeometrySupervision
from trainer.processes import leave_processes
from trainer.supervision import SupervisedTraining

logger = logging.getLogger("supervise")


class SupervisedSFTTrainer(SupervisedTraining, SFTTrainer):
    """`SFTTrainer`, to whose loss the terms of the geometry are added."""


def main(words: list[str] | None = None) -> None:
    """Train with supervision, detach it, save the model."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=8, help="rooms to train on")
    parser.add_argument("--steps", type=int, default=20, help="steps of the training")
    parser.add_argument("--output", type=Path, default=Path("outputs/supervised_trl"), help="folder of the model")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")
    options = parser.parse_args(words)
    arguments = SFTConfig(
        output_dir=str(options.output / "run"),
        max_steps=options.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        learning_rate=2e-3,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},  # the collator reads the samples as they are
        activation_checkpointing=True,
        bf16=False,
        use_cpu=options.cpu,
    )
    set_seed(0)
    with arguments.main_process_first(desc="rendering rooms"):
        rooms = load_rooms("train", options.rooms, image_size=112, num_frames=4)
    model, processor = build_tiny(list_texts(rooms))

    supervision = GeometrySupervision.attach(model, validator="light")
    trainer = SupervisedSFTTrainer(
        model,
        arguments,
        train_dataset=rooms,
        data_collator=RoomCollator(processor),
        processing_class=processor,
        supervision=supervision,
    )
    trainer.train()
    supervision.detach()

    trainer.save_model(str(options.output))
    logger.info("Saved %s without a trace of the supervision to %s", type(model).__name__, options.output)


if __name__ == "__main__":
    main()
    leave_processes()
