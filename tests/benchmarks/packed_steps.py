"""A training step of packed chats with attention in parts, beside the same step with a dense mask.

    PYTHONPATH=. python tests/benchmarks/packed_steps.py examples/recipes/rooms_nano.yaml --batches 8

Batches of a recipe are drawn once. Each is stepped forward and backward under both attentions in turn, one thread,
and the ratio of the processor's time is printed as JSON with the differences of losses and gradients. Neither the
optimizer, which costs the same, nor the collator is counted. Memory is the peak of the tensors of one step.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice

import torch
from step_cost import measure_peak
from tqdm import tqdm

from trainer import IDE3DTrainer
from trainer.recipes.arguments import read_recipe
from trainer.recipes.data import build_samples, list_texts, load_decoded
from trainer.recipes.lessons import choose_trainer, list_box_texts
from trainer.recipes.models import build_teacher, find_grid, load_model

ATTENTIONS = ("sdpa", "shared_prefix")


def build_trainer(recipe: str, num_rooms: int, output: str) -> IDE3DTrainer:
    """Trainer of a recipe on a few of its rooms, before the first step."""
    words = ["--num_rooms", str(num_rooms), "--output_dir", output, "--dataloader_num_workers", "0"]
    arguments, data, args = read_recipe(recipe, words)
    torch.manual_seed(args.seed)
    teacher, grid = build_teacher(arguments, args), find_grid(arguments, data)
    rooms = load_decoded("train", data.num_rooms, data)
    samples = build_samples(rooms, data, grid, training=True)
    texts = [*list_texts(rooms if data.lessons else samples), *list_box_texts(rooms, data)]
    model, processor = load_model(arguments, data, texts, teacher.feature_size if teacher else None, args.protocol)
    make_collator, make_trainer = choose_trainer(data)
    collator = make_collator(processor, teacher=teacher, protocol=args.protocol)
    return make_trainer(model, args, train_dataset=samples, data_collator=collator, processing_class=processor)


def packed_batches(trainer: IDE3DTrainer) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of the training that hold packed chats."""
    return (batch for batch in trainer.get_train_dataloader() if "segment_ids" in batch)


def measure(recipe: str, num_batches: int, num_rooms: int) -> dict:
    """Both attentions on the same batches."""
    with tempfile.TemporaryDirectory() as output:
        trainer = build_trainer(recipe, num_rooms, output)
        batches = list(islice(packed_batches(trainer), num_batches))
    model = trainer.model.train()

    def step(batch: dict[str, torch.Tensor], attention: str) -> float:
        model.set_attn_implementation({"text_config": attention})
        model.zero_grad()
        return float(trainer.training_step(model, batch))

    for attention in ATTENTIONS:  # what a first call sets up is paid by neither
        step(batches[0], attention)
    seconds, loss_difference, gradient_difference = dict.fromkeys(ATTENTIONS, 0.0), 0.0, 0.0
    for batch in tqdm(batches, desc="Batches", disable=None):
        losses, gradients = [], []
        for attention in ATTENTIONS:
            start = time.process_time()
            losses.append(step(batch, attention))
            seconds[attention] += time.process_time() - start
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        loss_difference = max(loss_difference, abs(losses[1] / losses[0] - 1))
        difference = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
        gradient_difference = max(gradient_difference, difference)
    peaks = {name: measure_peak(lambda: step(batches[0], name)) for name in ATTENTIONS}  # noqa: B023
    tokens = sum(int((batch["segment_ids"] >= 0).sum()) for batch in batches)
    return {
        "recipe": recipe,
        "time_ratio": seconds["shared_prefix"] / seconds["sdpa"],
        "seconds": seconds,
        "peak_ratio": peaks["shared_prefix"] / peaks["sdpa"],
        "peak_mb": peaks,
        "largest_relative_difference_of_a_loss": loss_difference,
        "largest_relative_difference_of_gradients": gradient_difference,
        "batches": len(batches),
        "padding": 1 - tokens / sum(batch["segment_ids"].numel() for batch in batches),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rooms", type=int, default=24)
    words = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(measure(words.recipe, words.batches, words.rooms)) + "\n")


if __name__ == "__main__":
    main()
