"""What a question costs in a training on a benchmark, alone and with others of its scene in one sample.

    PYTHONPATH=.:tests python tests/benchmarks/packed_questions.py [--task scanrefer] [--tokens 1000 4000]

Rooms are written in the public layout, and their questions are repeated until a scene has as many as one of ScanRefer
has in the mean. A step reads a sample by `BenchmarkDataset`, collates it, and takes all terms of "clean" forward and
backward, on the small fixed model of `step_cost.py`. The arms take turns. Printed as JSON, for each number of
`packed_tokens`: chats of a sample, questions a CPU second by those of one question a sample, peak memory of the
tensors of a step. For the first of them also the largest difference of a pack's gradients from those of its chats one
by one, relative to the largest entry, in float64.
"""

import argparse
import copy
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.step_cost import measure_peak
from equal_gradients import largest_difference

from modeling_ide3d.shared_prefix import SHARED_PREFIX
from processing import IDE3DProcessor
from processing.benchmarks import TASKS, load_task
from processing.benchmarks.export.rooms import export_rooms
from processing.benchmarks.readers.tasks import Layout
from processing.token_grid import TokenGrid
from trainer import IDE3DDataCollator
from trainer.data import BenchmarkDataset
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.supervision.criterion import GeometryCriterion
from trainer.teachers import PointMapTeacher

NUM_FRAMES, SIZE, NUM_SCENES = 4, 64, 1
QUESTIONS = 67  # of a scene of ScanRefer in the mean
TERMS = ("loss_depth", "loss_cross_view_depth", "loss_view_consistency", "loss_distillation", "loss_grounding")


def write_scenes(folder: Path, task: str) -> Path:
    """Write rooms whose scenes have `QUESTIONS` questions each."""
    export_rooms(folder, num_scenes=NUM_SCENES, image_size=SIZE, num_frames=NUM_FRAMES)
    path = Layout(folder).annotations(TASKS[task], "train")[0]
    of_scene: dict[str, list[dict[str, Any]]] = {}
    for record in json.loads(path.read_text()):
        of_scene.setdefault(record["video"], []).append(record)
    repeated = [records[number % len(records)] for records in of_scene.values() for number in range(QUESTIONS)]
    path.write_text(json.dumps([{**record, "id": number} for number, record in enumerate(repeated)]))
    return folder


def build(folder: Path, task: str) -> tuple[torch.nn.Module, IDE3DDataCollator, IDE3DProcessor]:
    """Build the small fixed model of `step_cost.py` for the words of these questions."""
    rows = load_task(task, "train", folder, num_frames=NUM_FRAMES)
    texts = [text for row in rows for text in (row["question"], *row["answers"])]
    processor = build_nano_processor(
        texts, image_size=SIZE, patch_size=8, spatial_pool_stride=1, num_frames=NUM_FRAMES
    )
    teacher = PointMapTeacher()
    torch.manual_seed(0)
    config = build_nano_config(processor, hidden_size=192, vision_layers=8, text_layers=8)
    model = build_nano_model(config, teacher_size=teacher.feature_size, validator={"output_stride": 2})
    model.criterion = GeometryCriterion()
    model.config.text_config._attn_implementation = SHARED_PREFIX  # as `IDE3DTrainer` does
    model.config.use_cache = False  # as a Trainer does
    return model.train(), IDE3DDataCollator(processor, teacher=teacher, protocol="clean"), processor


def take_step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    """Take all terms forward and backward."""
    model.zero_grad()
    outputs = model(**batch)
    (outputs.loss + sum(outputs[name] for name in TERMS if outputs.get(name) is not None)).backward()


def find_difference(
    model: torch.nn.Module, collator: IDE3DDataCollator, pack: dict[str, Any], chats: list[dict[str, Any]]
) -> float:
    """Return the largest difference of gradients of a pack and of its chats one by one."""
    model = copy.deepcopy(model).double()
    gradients = []
    for samples in ([pack], chats):
        batch = collator(samples)
        take_step(model, {**batch, "pixel_values_videos": batch["pixel_values_videos"].double()})
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    return largest_difference(gradients[1], gradients[0])


def measure(task: str, limits: list[int], repeats: int) -> dict[str, Any]:
    """Return figures of one question a sample, and of each limit; the gradients are those of the first limit."""
    with tempfile.TemporaryDirectory() as work:
        folder = write_scenes(Path(work) / "rooms", task)
        model, collator, processor = build(folder, task)
        grid = TokenGrid.of(processor)
        arms = {
            limit: BenchmarkDataset(
                task, "train", folder, grid, num_frames=NUM_FRAMES, packed_tokens=limit, processor=processor
            )
            for limit in (0, *limits)
        }
        times: dict[int, list[float]] = {limit: [] for limit in arms}
        for turn in range(-1, repeats):
            for limit, dataset in arms.items():
                indices = [0] if limit else range(0, len(dataset), len(dataset) // 8)
                questions = sum(len(dataset.packs[index]) for index in indices)
                start = time.process_time()
                for index in indices:
                    take_step(model, collator([dataset[index]]))
                if turn >= 0:  # the first one warms up
                    times[limit].append((time.process_time() - start) / questions)
        rows = []
        for limit, dataset in arms.items():
            batch = collator([dataset[0]])
            rows.append({
                "packed_tokens": limit,
                "chats_of_a_sample": len(dataset.packs[0]),
                "tokens_of_a_sample": batch["input_ids"].shape[1],
                "cpu_ms_of_a_question": 1e3 * statistics.median(times[limit]),
                "questions_a_cpu_second_by_single": statistics.median(times[0]) / statistics.median(times[limit]),
                "peak_mb": measure_peak(lambda batch=batch: take_step(model, batch)),
            })  # fmt: skip
        chats = [arms[0][row] for row in arms[limits[0]].packs[0]]
        difference = find_difference(model, collator, arms[limits[0]][0], chats)
        return {"task": task, "gradient_difference": difference, "arms": rows}


def main() -> None:
    """Print the figures of a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[name for name in TASKS if name != "vsibench"], default="scanrefer")
    parser.add_argument("--tokens", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(measure(options.task, options.tokens, options.repeats), indent=2) + "\n")


if __name__ == "__main__":
    main()
