"""Whether a model learns the same from questions of one scene in one sample as from one question a sample.

    PYTHONPATH=.:tests python tests/benchmarks/packed_learning.py [--rooms 60] [--questions 4800] [--seeds 2]

Rooms are written in the public layout. A nano model is trained on the questions of ScanQA there, with equal seeds,
steps, and questions a step: 16 samples of one question, or 2 packs of about 8. A validation question is right if each
word of its answer is the likeliest one, as greedy decoding would say it. Printed as JSON: the share of right answers
of both, the mean negative log-likelihood of an answer token, CPU seconds, and the difference (packed minus single)
with its 95 % intervals over other rooms and other seeds (`trainer.evaluation.compare`).
"""

import argparse
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from processing import IDE3DProcessor
from processing.benchmarks import load_task
from processing.benchmarks.export.rooms import export_rooms
from processing.token_grid import TokenGrid
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.data import BenchmarkDataset
from trainer.evaluation.compare import compare_paired
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor

TASK, SIZE, NUM_FRAMES, CHATS = "scanqa", 48, 2, 8
ARMS = {"single": (0, 2 * CHATS), "packed": (1, 2)}  # whether chats are packed, samples of a step
NO_GEOMETRY = ("depth", "cross_view", "overlap", "consistency", "distillation", "grounding")


def build_processor(folder: Path) -> IDE3DProcessor:
    """Build the processor for the words of the training questions."""
    rows = load_task(TASK, "train", folder, num_frames=NUM_FRAMES)
    texts = [text for row in rows for text in (row["question"], *row["answers"])]
    return build_nano_processor(
        texts, image_size=SIZE, patch_size=8, spatial_pool_stride=1, num_frames=NUM_FRAMES, vocab_size=400
    )


def open_split(folder: Path, split: str, processor: IDE3DProcessor, packed_tokens: int) -> BenchmarkDataset:
    """Open the questions of a split."""
    options = {"num_frames": NUM_FRAMES, "has_geometry": False, "packed_tokens": packed_tokens}
    return BenchmarkDataset(TASK, split, folder, TokenGrid.of(processor), processor=processor, **options)


def find_tokens_of_chats(folder: Path, processor: IDE3DProcessor) -> int:
    """Return the least limit whose packs hold `CHATS` questions in the mean, or all of a scene."""
    for tokens in range(50, 2000, 10):
        packs = open_split(folder, "train", processor, tokens).packs
        if statistics.mean(map(len, packs)) >= CHATS:
            return tokens
    return 2000


def train(dataset: BenchmarkDataset, processor: IDE3DProcessor, batch: int, steps: int, seed: int) -> torch.nn.Module:
    """Train a nano model from scratch on the language term."""
    torch.manual_seed(seed)
    config = build_nano_config(processor, hidden_size=96, vision_layers=2, text_layers=2, heads=4)
    model = build_nano_model(config, teacher_size=None, validator=None)
    with tempfile.TemporaryDirectory() as output:
        args = IDE3DTrainingArguments(
            output_dir=output,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=2e-3,
            vision_learning_rate=2e-3,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            seed=seed,
            **{f"{name}_weight": 0.0 for name in NO_GEOMETRY},
        )
        collator = IDE3DDataCollator(processor, protocol="clean")
        IDE3DTrainer(model, args, train_dataset=dataset, data_collator=collator, processing_class=processor).train()
    return model.eval()


@torch.no_grad()
def answer(
    model: torch.nn.Module, dataset: BenchmarkDataset, processor: IDE3DProcessor
) -> Iterator[tuple[str, bool, float, int]]:
    """Yield scene, whether the answer is right, its negative log-likelihood and its tokens, of each question."""
    collator = IDE3DDataCollator(processor, protocol="clean")
    for start in range(0, len(dataset), 32):
        samples = [dataset[index] for index in range(start, min(start + 32, len(dataset)))]
        batch = collator(samples)
        labels = batch.pop("labels")[:, 1:]
        logits = model(**batch).logits[:, :-1].float()
        for sample, label, scores in zip(samples, labels, logits, strict=True):
            said = label >= 0
            loss = F.cross_entropy(scores[said], label[said], reduction="sum")
            is_right = bool((scores[said].argmax(-1) == label[said]).all())
            yield sample["scene_id"], is_right, float(loss), int(said.sum())


def main() -> None:
    """Train both arms with each seed and print what they learned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=60)
    parser.add_argument("--questions", type=int, default=4800)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as work:
        folder = export_rooms(Path(work) / "rooms", num_scenes=options.rooms, image_size=SIZE, num_frames=NUM_FRAMES)
        processor = build_processor(folder)
        tokens = find_tokens_of_chats(folder, processor)
        validation = open_split(folder, "val", processor, 0)
        right: dict[str, list[dict[str, int]]] = {}
        report = {"task": TASK, "packed_tokens": tokens, "validation_questions": len(validation), "arms": {}}
        for arm, (is_packed, batch) in ARMS.items():
            dataset = open_split(folder, "train", processor, is_packed * tokens)
            chats = statistics.mean(map(len, dataset.packs))
            steps = round(options.questions / (batch * chats))
            losses, seconds, right[arm] = [], [], []
            for seed in range(options.seeds):
                start = time.process_time()
                model = train(dataset, processor, batch, steps, seed)
                seconds.append(time.process_time() - start)
                scenes = dict.fromkeys(validation.rows["scene_id"], 0)
                answers = list(answer(model, validation, processor))
                for scene, is_right, _, _ in answers:
                    scenes[scene] += is_right
                right[arm].append(scenes)
                losses.append(sum(row[2] for row in answers) / sum(row[3] for row in answers))
            report["arms"][arm] = {
                "chats_of_a_sample": chats,
                "steps": steps,
                "questions": round(steps * batch * chats),
                "cpu_seconds": seconds,
                "right": [sum(scenes.values()) / len(validation) for scenes in right[arm]],
                "loss_of_an_answer_token": losses,
            }
        scene_ids = list(right["single"][0])
        counts = [validation.rows["scene_id"].count(scene) for scene in scene_ids]
        ours, theirs = (np.array([[s[i] for i in scene_ids] for s in right[arm]]) for arm in ("packed", "single"))
        found = compare_paired(ours, theirs, np.array(counts))
        report["packed_minus_single"] = {
            "right": found.value,
            "per_seed": found.per_seed,
            "interval_over_rooms": found.scene_interval,
            "interval_over_seeds": found.seed_interval,
        }
        report["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
