"""Rooms, benchmarks and chats as the training and evaluation data of a recipe."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from processing import IDE3DProcessor
from processing.rooms import load_rooms
from processing.rooms.places import place_sample
from processing.rooms.samples import room_samples
from processing.token_grid import TokenGrid
from trainer.data.chat_samples import ChatDataset
from trainer.loop.benchmark_mixture import build_benchmark_mixture
from trainer.loop.chat_stream import ChatStream
from trainer.loop.mixture import MixtureDataset
from trainer.recipes.arguments import DataArguments
from trainer.recipes.lessons import draw_lessons, draw_validation
from trainer.teachers import TeacherStore
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = [
    "REGION_QUESTIONS",
    "build_benchmarks",
    "build_chats",
    "build_samples",
    "list_texts",
    "load_decoded",
    "load_training_rooms",
    "make_samples",
    "room_options",
]

REGION_QUESTIONS = ("distance", "position", "closer", "direction", "colour")


def room_options(data: DataArguments) -> dict[str, int | str | list[str]]:
    """Return what `load_rooms` has to know beside the split and the number of rooms."""
    return {
        "style": data.room_style,
        "variations": data.room_variations,
        "seed": data.data_seed_rooms,
        "image_size": data.image_size,
        "num_frames": data.num_frames,
    }


def load_decoded(split: str, num_rooms: int, data: DataArguments) -> list[dict]:
    """Load rooms of a split, their pictures decoded once for all samples."""
    rooms = load_rooms(split, num_rooms, **room_options(data))
    pictures = ("frames", "depth", "instance_ids")
    return [
        {**room, **{key: [np.asarray(image) for image in room[key]] for key in pictures}}
        for room in tqdm(rooms, desc=f"Rooms of {split}", unit="room")
    ]


def load_training_rooms(data: DataArguments) -> list[dict]:
    """Load the training rooms of a recipe, the further ones behind the others."""
    rooms = load_decoded("train", data.num_rooms, data)
    if data.further_rooms:
        further = replace(data, room_style=data.further_style, room_variations=data.further_variations)
        rooms += load_decoded("train", data.further_rooms, further)
    return rooms


def make_samples(rooms: list[dict], data: DataArguments, grid: TokenGrid, *, training: bool) -> list[dict]:
    """Pack all questions of a room into one sample, grounding questions beside, places in training."""
    reference = None if data.reference == "both" else data.reference
    types = REGION_QUESTIONS if data.reference == "region" else None
    samples = []
    rng = np.random.default_rng(data.data_seed_rooms)
    for room in tqdm(rooms, desc="Samples", unit="room"):
        if training:
            views = rng.permutation(data.num_frames)[: data.place_samples]
            samples += [place_sample(room, grid, rng, data.max_questions, view=int(view)) for view in views]
        samples += [
            sample
            for sample in room_samples(room, grid, reference=reference, types=types, max_questions=data.max_questions)
            if "region_targets" not in sample
        ]
        if data.max_grounding and (not training or rng.random() < data.grounding_share):
            samples += room_samples(room, grid, types=("grounding",), max_questions=data.max_grounding)
    return samples


def build_samples(
    rooms: list[dict], data: DataArguments, grid: TokenGrid, *, training: bool
) -> list[dict] | MixtureDataset:
    """Make samples of rooms: drawn anew by `lessons`, or as the rooms are stored."""
    if not data.lessons:
        return make_samples(rooms, data, grid, training=training)
    return draw_lessons(rooms, data, grid) if training else draw_validation(rooms, data, grid)


def list_texts(samples: list[dict]) -> list[str]:
    """List questions and answers of rooms or samples: the words of a nano model."""
    return [
        text for sample in samples for entry in sample["questions"] for text in (entry["question"], entry["answer"])
    ]


def build_benchmarks(
    data: DataArguments,
    args: IDE3DTrainingArguments,
    processor: IDE3DProcessor,
    has_teacher: bool,
    pseudo_geometry: TeacherStore | None = None,
) -> tuple[MixtureDataset, MixtureDataset | None]:
    """Build training and evaluation data from benchmarks in the public layout.

    Raises:
        ValueError: No folder is named; see also `build_benchmark_mixture`.
        FileNotFoundError: A file of the folder is missing.
    """
    if data.data_dir is None:
        raise ValueError("source: benchmarks needs data_dir, the folder of the benchmarks in the public layout.")
    options = {
        "protocol": args.protocol,
        "frames": data.frames,
        "num_frames": data.num_frames,
        "has_geometry": _needs_geometry(args),
        "has_teacher": has_teacher,
        "regions": data.regions,
        "skip_invalid_poses": data.skip_invalid_poses,
        "pseudo_geometry": pseudo_geometry,
        "kept_scenes": data.kept_scenes,
    }
    grid = TokenGrid.of(processor)
    packing = {"weights": data.task_weights, "packed_tokens": data.packed_tokens, "processor": processor}
    train = build_benchmark_mixture(data.tasks, "train", data.data_dir, grid, **packing, **options)
    count = data.num_validation_samples
    if not count:
        return train, None
    whole = build_benchmark_mixture(data.tasks, "val", data.data_dir, grid, **options)
    return train, MixtureDataset({name: _thinned(part, count) for name, part in whole.datasets.items()})


def build_chats(
    data: DataArguments, args: IDE3DTrainingArguments, has_teacher: bool
) -> tuple[ChatDataset | ChatStream, Subset | None]:
    """Build training and evaluation data from files of chats.

    Args:
        data: Data arguments of the recipe.
        args: Arguments of the training, whose loss weights tell whether geometry is read.
        has_teacher: Whether a teacher reads the geometry of scans.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is broken, a row is no chat, or a stream has no number of steps.
    """
    options = {
        "num_frames": data.num_frames,
        "has_geometry": has_teacher or _needs_geometry(args),
        "skip_invalid_poses": data.skip_invalid_poses,
    }
    train = _stream(data, args, options) if data.streaming else ChatDataset(data.chats, data.data_dir, **options)
    if not data.validation_chats or not data.num_validation_samples:
        return train, None
    return train, _thinned(ChatDataset(data.validation_chats, data.data_dir, **options), data.num_validation_samples)


def _stream(data: DataArguments, args: IDE3DTrainingArguments, options: dict[str, Any]) -> ChatStream:
    """Build the stream of a training; it has no length."""
    if args.max_steps <= 0:
        raise ValueError("streaming: true needs max_steps: a stream of chats has no length. Set it, or leave it out.")
    if args.auto_find_batch_size:
        raise ValueError("streaming: true needs batches of one size: set auto_find_batch_size: false.")
    seed = args.seed if args.data_seed is None else args.data_seed
    return ChatStream(data.chats, data.data_dir, batch=args.train_batch_size * args.world_size, seed=seed, **options)


def _needs_geometry(args: IDE3DTrainingArguments) -> bool:
    """Return whether a loss term that has a weight reads depth or poses."""
    weights = args.loss_weights
    return any(weights[name] for name in weights if name not in ("loss_distillation", "loss_grounding"))


def _thinned(dataset: Dataset, count: int) -> Subset:
    """Return at most `count` samples that lie evenly over a data set."""
    return Subset(dataset, range(0, len(dataset), -(-len(dataset) // count))[:count])
