"""Error of poses that a nano model reads from frames, in rooms and in a real walk that it was not trained on.

    python tests/benchmarks/pose_error.py --output outputs/pose
    python tests/benchmarks/pose_error.py --output outputs/pose --kitchen path/to/posed_images_folder

The shipped nano model is trained further on `loss_pose` and `loss_scale` alone, by `IDE3DTrainer`, on videos of four
frames out of rendered rooms. A run that was stopped goes on from its last checkpoint. With `--kitchen` the trained
model is also trained further on the first half of that walk; the second half is measured before and after.

A pair is the first frame of a video with another one, in both directions. Rotation errors are in degrees, translation
errors in percent of the video's mean depth, both medians over the pairs. Beside the model stand three guesses that
look at no picture:

- `still`: the camera does not move;
- `mean`: the mean motion of the training videos between these two frames of a video;
- `steady`: the camera goes on as between the first two frames, whose true motion this guess is told. So the right
  columns leave out pairs with the second frame.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ide3d.nano import nano_model
from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor, PosedVideo
from processing.rooms import load_rooms
from processing.tables import format_number, markdown_table
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.geometry import FramePairs
from trainer.loop.checkpoints import get_last_checkpoint
from trainer.losses.relative_pose import measure_pose_errors

logger = logging.getLogger("pose_error")

NUM_FRAMES, ROOM_FRAMES, IMAGE_SIZE = 4, 8, 64  # a room's walk is cut into videos of four frames
GAPS = (1, 2)  # frames of a room between those of a training video
BATCH = 8
VISITS = 1000  # videos of a training video that are not alike
HEAD_RATE = 5  # of the heads, which begin anew, over that of the model
LATER = 2  # index of the first frame that `steady` is not told
STILL = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class Walks(Dataset):
    """Videos of four frames, drawn from longer ones; forwards or backwards in time.

    Args:
        videos: Videos with geometry.
        gaps: Frames of a video between two that are taken.
        seed: Seed of the draws.
    """

    def __init__(self, videos: Sequence[PosedVideo], gaps: Sequence[int], seed: int = 0):
        self.videos, self.gaps, self.seed = videos, gaps, seed

    def __len__(self) -> int:
        return VISITS * len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index))
        video, gap = self.videos[index % len(self.videos)], int(rng.choice(self.gaps))
        start = int(rng.integers(len(video) - (NUM_FRAMES - 1) * gap))
        chosen = range(start, start + NUM_FRAMES * gap, gap)
        return make_sample(video, chosen[::-1] if rng.random() < 0.5 else chosen)


def make_sample(video: PosedVideo, indices: Sequence[int]) -> dict[str, Any]:
    """Return a sample of these frames, with geometry and without a question."""
    index = np.array(indices)
    return {
        "messages": [{"role": "user", "content": [{"type": "video"}]}],
        "frames": video.frames[index],
        "depth": video.depth[index],
        "intrinsics": video.intrinsics[index],
        "camera_to_world": video.camera_to_world[index],
    }


def cut(video: PosedVideo, gap: int) -> list[dict[str, Any]]:
    """Return samples of four frames that are `gap` apart, from every frame on."""
    span = (NUM_FRAMES - 1) * gap
    return [make_sample(video, range(start, start + span + 1, gap)) for start in range(len(video) - span)]


def train(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    walks: Walks,
    output: Path,
    steps: int,
    rate: float,
    layer: str | None,
) -> None:
    """Train the terms of cameras alone, or resume it."""
    options = {} if layer is None else {"camera_layer": layer}
    args = IDE3DTrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        geometry_learning_rate=HEAD_RATE * rate,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 20,
        weight_decay=0.05,
        pose_weight=1.0,
        scale_weight=0.1,
        logging_steps=100,
        save_steps=500,
        save_total_limit=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    trainer = IDE3DTrainer(model, args, train_dataset=walks, data_collator=collator)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output)))


def batches(
    model: IDE3DForConditionalGenerationWithGeometry, collator: IDE3DDataCollator, samples: Sequence[dict]
) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Yield the batches of samples with their targets."""
    for start in range(0, len(samples), BATCH):
        batch = collator(samples[start : start + BATCH])
        yield batch, model.build_targets(**batch)


def as_numbers(motion: Tensor, mean_depth: Tensor) -> Tensor:
    """Return poses (N, 4, 4) in metres as the nine numbers that the head predicts, (N, 9)."""
    columns = motion[:, :3, :2].transpose(1, 2).flatten(1)
    return torch.cat((motion[:, :3, 3] / mean_depth[:, None], columns), 1)


def find_mean_motion(
    model: Any, collator: IDE3DDataCollator, samples: Sequence[dict]
) -> dict[tuple[int, int], Tensor]:
    """Return the mean of the nine numbers by (source, target) over the videos of a training."""
    found: dict[tuple[int, int], list[Tensor]] = {}
    for _, targets in batches(model, collator, samples):
        pairs = targets.tensors["pose_pairs"]
        numbers = as_numbers(pairs.target_from_source, targets.tensors["pair_depth"])
        for source, target, row in zip(pairs.source.tolist(), pairs.target.tolist(), numbers, strict=True):
            found.setdefault((source, target), []).append(row)
    return {places: torch.stack(rows).mean(0) for places, rows in found.items()}


def go_on(pairs: FramePairs) -> Tensor:
    """Return the motions (N, 4, 4) of a camera that repeats the true one between the first two frames."""
    motions = []
    for video, source, target in zip(pairs.batch, pairs.source.tolist(), pairs.target.tolist(), strict=True):
        of_first = (pairs.batch == video) & (pairs.source == 1) & (pairs.target == 0)
        step = torch.linalg.matrix_power(pairs.target_from_source[of_first][0].double(), max(source, target))
        motions.append(step if target == 0 else torch.linalg.inv(step))
    return torch.stack(motions).float()


@torch.no_grad()
def measure(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    samples: Sequence[dict],
    mean_motion: dict[tuple[int, int], Tensor],
) -> dict[str, dict[str, Tensor]]:
    """Measure model and guesses: by name `degrees` and `percent` of each pair, and which pairs are `later`."""
    model.eval()
    rows: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for batch, targets in batches(model, collator, samples):
        pairs, mean_depth = targets.tensors["pose_pairs"], targets.tensors["pair_depth"]
        places = list(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True))
        predictions = {
            "model": model(**batch, targets=targets).pose,
            "still": torch.tensor(STILL).expand(len(places), -1),
            "mean": torch.stack([mean_motion[place] for place in places]),
            "steady": as_numbers(go_on(pairs), mean_depth),
        }
        is_later = torch.tensor([max(place) >= LATER for place in places])
        for name, numbers in predictions.items():
            errors = measure_pose_errors(numbers, pairs.target_from_source, mean_depth)
            rows.setdefault(name, []).append((*errors, is_later))
    keys = ("degrees", "percent", "later")
    return {
        name: dict(zip(keys, map(torch.cat, zip(*parts, strict=True)), strict=True)) for name, parts in rows.items()
    }


def tabulate(results: dict[str, dict[str, dict[str, Tensor]]]) -> str:
    """Return medians by data and predictor as a table in Markdown."""
    rows = []
    for data, errors in results.items():
        for name, found in errors.items():
            later = found["later"]
            medians = [found[key][chosen] for chosen in (later >= 0, later) for key in ("degrees", "percent")]
            is_told = name == "steady"  # the pairs with the second frame
            cells = [
                "" if is_told and place < 2 else format_number(float(values.median()), 1)
                for place, values in enumerate(medians)
            ]
            rows.append([data if name == "model" else "", name, str(len(later)), *cells])
    head = [
        "data",
        "predicted by",
        "pairs",
        "rotation, degrees",
        "translation, %",
        "rotation, later",
        "translation, later",
    ]
    return markdown_table(head, rows, "llrrrrr")


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="Folder of the trainings' checkpoints.")
    parser.add_argument("--kitchen", type=Path, help="Real walk in the posed_images layout.")
    parser.add_argument("--num-rooms", type=int, default=800, help="Rooms of the training.")
    parser.add_argument("--validation-rooms", type=int, default=200, help="Rooms that are measured.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=3e-4, help="Learning rate of the model.")
    parser.add_argument("--tuning-steps", type=int, default=300, help="Steps on the first half of the kitchen.")
    parser.add_argument("--gaps", type=int, nargs="+", default=[1, 3], help="Frames of the kitchen in a step.")
    parser.add_argument("--layer", help="Hidden state that the heads read, such as vision.4; default: the last.")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    processor = IDE3DProcessor.from_pretrained(nano_model())
    collator = IDE3DDataCollator(processor)
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(nano_model())
    sizes = {"image_size": IMAGE_SIZE, "num_proc": 1}
    rooms = load_rooms("train", args.num_rooms, num_frames=ROOM_FRAMES, **sizes)
    walks = Walks([PosedVideo.from_room(row) for row in rooms], GAPS)
    unseen = load_rooms("validation", args.validation_rooms, num_frames=NUM_FRAMES, **sizes)
    data = {"unseen rooms": [sample for row in unseen for sample in cut(PosedVideo.from_room(row), 1)]}
    train(model, collator, walks, args.output / "rooms", args.steps, args.rate, args.layer)
    mean_motion = find_mean_motion(model, collator, [walks[index] for index in range(2 * args.num_rooms)])
    results = {name: measure(model, collator, samples, mean_motion) for name, samples in data.items()}
    if args.kitchen is not None:
        video = PosedVideo.from_folder(args.kitchen)
        half = len(video) // 2
        seen, kept = video.select_frames(range(half)), video.select_frames(range(half, len(video)))
        kitchens = {f"kitchen, second half, every {gap}.": cut(kept, gap) for gap in args.gaps}
        for name, samples in kitchens.items():
            results[f"{name} (trained on rooms)"] = measure(model, collator, samples, mean_motion)
        tuned = Walks([seen], args.gaps, seed=1)
        model.train()
        train(model, collator, tuned, args.output / "kitchen", args.tuning_steps, 0.3 * args.rate, args.layer)
        mean_motion = find_mean_motion(model, collator, [sample for gap in args.gaps for sample in cut(seen, gap)])
        for name, samples in kitchens.items():
            results[f"{name} (and its first half)"] = measure(model, collator, samples, mean_motion)
    sys.stdout.write(tabulate(results) + "\n")


if __name__ == "__main__":
    main()
