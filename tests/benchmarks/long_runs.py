"""Memory and open files of one process that works for long, as a table, a picture and a verdict.

    PYTHONPATH=.:tests python tests/benchmarks/long_runs.py --picture docs/assets/long_runs.png

Two runs with nano models: 10,000 questions and searches on 50 scenes, each read from a video file or a folder of
pictures, and 2,000 training steps with an evaluation and a checkpoint every 100. A line is fitted to the second half
of each curve, behind the warming up; the exit code is 1 if it rises by more than 1 % of the memory, or one handle,
over that half.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from exporting import write_frames
from PIL import Image
from scene_models import SCENE_QUESTIONS, build_scene_model, build_scene_processor
from tqdm import tqdm
from training_samples import build_collator, build_model, make_grounding_sample, make_mixed_batch
from transformers import TrainerCallback

from processing.token_grid import TokenGrid
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.session import SceneSession

QUESTIONS, SCENES, STEPS = 10_000, 50, 2_000
EVERY = 100  # training steps between two evaluations and checkpoints
ALLOWED_RISE = 0.01  # of the memory, over the second half


@dataclass
class Curve:
    """Own memory in MB and open handles of this process, by units of work done."""

    unit: str
    done: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def measure(self, done: int) -> None:
        gc.collect()  # cycles that wait for the collector are no leak
        # Pages of libraries come and go with the load of the machine; swapped pages are held all the same.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.done.append(done)
        self.memory.append(sum(int(status[name].split()[0]) for name in ("RssAnon", "VmSwap")) / 1e3)
        self.handles.append(len(os.listdir("/proc/self/fd")))

    def rise(self, values: list) -> float:
        """Return how far the fitted line rises over the second half."""
        half = slice(len(values) // 2, None)
        slope = np.polyfit(self.done[half], values[half], 1)[0]
        return float(slope * (self.done[-1] - self.done[half][0]))

    def summary(self) -> dict:
        rise, handles = self.rise(self.memory), self.rise(self.handles)
        return {
            "unit": self.unit,
            "done": self.done[-1],
            "memory_mb": [round(self.memory[place], 1) for place in (0, len(self.memory) // 2, -1)],
            "memory_rise_mb": round(rise, 2),
            "handles": [self.handles[place] for place in (0, len(self.handles) // 2, -1)],
            "handles_rise": round(handles, 2),
            "is_flat": rise <= ALLOWED_RISE * self.memory[-1] and handles < 1,
        }


def write_scenes(folder: Path, count: int) -> Iterator[Path]:
    """Write each scene when it is asked for: a video file, or a folder of pictures."""
    for number in range(count):
        frames = np.random.default_rng(number).integers(0, 255, (4, 80, 96, 3), np.uint8)
        path = folder / f"scene{number:03d}"
        if number % 2:
            yield write_frames(path.with_suffix(".mp4"), frames)
        else:
            path.mkdir()
            for index, frame in enumerate(frames):
                Image.fromarray(frame).save(path / f"{index}.png")
            yield path


def ask(folder: Path, questions: int, scenes: int) -> Curve:
    """Ask and search scene by scene in one process."""
    processor = build_scene_processor()
    model, curve = build_scene_model(processor), Curve("questions")
    each = questions // scenes
    grid = TokenGrid.of(processor)
    masks = torch.zeros(3, 3, grid.rows, grid.cols, dtype=torch.bool)
    masks[torch.arange(3), torch.arange(3), 0, 0] = True
    for number, path in enumerate(tqdm(write_scenes(folder, scenes), total=scenes, unit="scene")):
        session = SceneSession(model, processor, str(path))
        texts = [SCENE_QUESTIONS[index % len(SCENE_QUESTIONS)] for index in range(each)]
        session.ask(texts[: each - each // 10], max_new_tokens=8)
        session.ground(texts[: each // 10], masks)
        curve.measure((number + 1) * each)
    return curve


def train(folder: Path, steps: int) -> Curve:
    """Train with evaluations and checkpoints in one process."""
    curve = Curve("training steps")

    class Measure(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % (EVERY // 4) == 0:
                curve.measure(state.global_step)

    samples = [*make_mixed_batch(), make_grounding_sample(2, seed=7)]
    args = IDE3DTrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", max_steps=steps, per_device_train_batch_size=2,
        eval_strategy="steps", eval_steps=EVERY, save_strategy="steps", save_steps=EVERY, save_total_limit=2,
        logging_steps=EVERY, learning_rate=1e-4,
    )  # fmt: skip
    trainer = IDE3DTrainer(
        build_model(), args, train_dataset=samples, eval_dataset=samples, data_collator=build_collator(),
        callbacks=[Measure()],
    )  # fmt: skip
    trainer.train()
    return curve


def draw(curves: list[Curve], path: Path) -> None:
    """Draw memory and handles of each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(5 * len(curves), 3), squeeze=False)
    for axis, curve in zip(axes[0], curves, strict=True):
        axis.plot(curve.done, curve.memory, color="tab:blue", label="own memory, MB")
        axis.set(xlabel=curve.unit, ylabel="own memory, MB", ylim=(0, 1.3 * max(curve.memory)))
        other = axis.twinx()
        other.plot(curve.done, curve.handles, color="tab:orange", label="open handles")
        other.set(ylabel="open handles", ylim=(0, 2.5 * max(curve.handles)))
        axis.legend(loc="upper left", frameon=False)
        other.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> int:
    """Run, print the summary as JSON, draw; 0 if all is flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--picture", type=Path, help="file of the plot")
    words = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scenes, run = Path(folder, "scenes"), Path(folder, "run")
        scenes.mkdir()
        curves = [ask(scenes, words.questions, words.scenes), train(run, words.steps)]
    if words.picture:
        draw(curves, words.picture)
    summaries = [curve.summary() for curve in curves]
    sys.stdout.write(json.dumps(summaries, indent=1) + "\n")
    return 0 if all(summary["is_flat"] for summary in summaries) else 1


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
