"""Train Qwen2.5-VL in a loop of accelerate, in any number of processes, with geometry supervision.

python examples/supervise_with_accelerate.py
accelerate launch --num_processes 2 --cpu examples/supervise_with_accelerate.py --cpu
"""

import argparse
import contextlib
import itertools
import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from supervise_any_model import RoomCollator, build_tiny, list_texts
from torch.utils.data import DataLoader

from processing.rooms import load_rooms
from trainer import GeometrySupervision
from trainer.processes import leave_processes

logger = logging.getLogger("supervise")


def main(words: list[str] | None = None) -> None:
    """Train with supervision, detach it, save the model."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=8, help="rooms to train on")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of the training")
    parser.add_argument("--accumulation", type=int, default=2, help="batches of a process in a step")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/supervised_accelerate"), help="folder of the model"
    )
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")
    options = parser.parse_args(words)
    accelerator = Accelerator(cpu=options.cpu)
    set_seed(0)
    with accelerator.main_process_first():
        rooms = load_rooms("train", options.rooms, image_size=112, num_frames=4)
    model, processor = build_tiny(list_texts(rooms))

    supervision = GeometrySupervision.attach(model.to(accelerator.device), validator="light")
    supervision.join(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loader = DataLoader(rooms, batch_size=1, shuffle=True, collate_fn=RoomCollator(processor))
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    wrapped.train()
    for step in range(options.steps):
        of_step = supervision.prepare_step(list(itertools.islice(batches, options.accumulation)))
        for index, batch in enumerate(of_step, 1):
            is_last = index == len(of_step)
            with contextlib.nullcontext() if is_last else accelerator.no_sync(wrapped):
                loss = wrapped(**batch).loss
                accelerator.backward(loss / len(of_step))
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0:
            terms = {name: round(term.item(), 3) for name, term in supervision.terms.items()}
            logger.info("step %d: loss %.3f, %s", step, loss.item(), terms)
    supervision.detach()

    state = accelerator.get_state_dict(wrapped)
    model.save_pretrained(options.output, state_dict=state, is_main_process=accelerator.is_main_process)
    logger.info("Saved %s without a trace of the supervision to %s", type(model).__name__, options.output)


if __name__ == "__main__":
    main()
    leave_processes()
