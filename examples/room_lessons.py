"""How a nano model of words is taught in `train.py`: samples drawn anew at every visit of a room, lessons first."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing.regions import TokenGrid
from processing.rooms.lessons import LessonSamples
from processing.rooms.questions.wording import plural
from processing.rooms.samples import naming_samples
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.loop.mixture import MixtureDataset
from trainer.nano.build import search_by_words
from trainer.nano.lessons import lesson_kept, name_cells, read_regions
from trainer.nano.mentions import MentionCollator, MentionTrainer

LESSON_PASSES = 100  # samples of a room and kind that are not alike


def read_shares(lessons: list[str]) -> dict[str, float]:
    """Share of each kind in lessons such as `view=2`.

    Raises:
        ValueError: A lesson that is not written as `kind=share`, or the lesson before the training.
    """
    shares = {}
    for lesson in lessons:
        name, _, share = lesson.partition("=")
        if name == "naming":
            raise ValueError("naming is what naming_steps trains; lessons are of place, region, word and view.")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ValueError(f"lessons are written kind=share, such as view=2, got {lesson!r}.") from None
    return shares


def draw_lessons(rooms: list[dict], data: Any, grid: TokenGrid, lessons: list[str] | None = None) -> MixtureDataset:
    """Samples of the kinds in `lessons`, by default `data.lessons`, in their shares, drawn anew at every visit."""
    shares = read_shares(lessons or data.lessons)
    return MixtureDataset({name: make_lesson(rooms, data, grid, name) for name in shares}, shares)


def make_lesson(rooms: list[dict], data: Any, grid: TokenGrid, name: str) -> LessonSamples:
    """Samples of one kind, more than a training of hours visits."""
    options = {"num_passes": LESSON_PASSES, "max_questions": data.max_questions, "seed": data.data_seed_rooms}
    return LessonSamples(rooms, grid, name, **options)


def draw_validation(rooms: list[dict], data: Any, grid: TokenGrid) -> list[dict]:
    """One sample of each kind and room, the same at every evaluation."""
    kinds = read_shares(data.lessons)
    return [sample for kind in kinds for sample in LessonSamples(rooms, grid, kind, max_questions=data.max_questions)]


def choose_trainer(data: Any) -> tuple[type[IDE3DDataCollator], Callable[..., IDE3DTrainer]]:
    """Collator and trainer: with the term on what words name if it has a weight.

    Raises:
        ValueError: It has one without `lessons`, whose samples say what their words name.
    """
    if not data.mention_weight:
        return IDE3DDataCollator, IDE3DTrainer
    if not data.lessons:
        raise ValueError("mention_weight needs samples that say what their words name: set lessons.")
    return MentionCollator, partial(MentionTrainer, mention_weight=data.mention_weight)


def take_lessons(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    rooms: list[dict],
    samples: list[dict] | MixtureDataset,
    data: Any,
    args: IDE3DTrainingArguments,
    make_trainer: Callable[..., IDE3DTrainer] = IDE3DTrainer,
) -> None:
    """The lessons before the training, each done once: an interrupted run goes on with the next."""
    if data.word_search and not data.naming_steps:
        raise ValueError("word_search starts from what naming has learned: set naming_steps.")
    folder, grid = Path(args.output_dir) / "lessons", collator.grid
    if data.lesson_learning_rate is not None:
        args = copy.copy(args)  # not `replace`, which starts the processes anew
        args.learning_rate = data.lesson_learning_rate
    if data.lessons:
        words, pointed = make_lesson(rooms, data, grid, "naming"), make_lesson(rooms, data, grid, "region")
        read = draw_lessons(rooms, data, grid, data.reading_lessons)
    else:
        words = [sample for room in rooms for sample in naming_samples(room, grid)]
        read = pointed = [
            sample for sample in samples if all(entry["reference"] == "region" for entry in sample["questions"])
        ]
    if data.naming_steps:
        with lesson_kept(model, folder / "naming.safetensors") as is_done:
            if not is_done:
                name_cells(model, collator, words, pointed, args, data.naming_steps)
        if data.word_search:
            search_by_words(model, content_words(collator.processor.tokenizer, rooms))
    if data.reading_steps:
        with lesson_kept(model, folder / "reading.safetensors") as is_done:
            if not is_done:
                read_regions(model, collator, read, args, data.reading_steps, make_trainer)


def content_words(tokenizer: PreTrainedTokenizerBase, rooms: list[dict]) -> list[list[int]]:
    """First tokens of the colours, the kinds and their plurals, as they stand within a question."""
    colours = sorted({thing["colour"] for room in rooms for thing in room["objects"]})
    kinds = sorted({thing["category"] for room in rooms for thing in room["objects"]})
    groups = (colours, kinds, [plural(kind) for kind in kinds])
    return [[tokenizer.encode(f" {word}")[0] for word in group] for group in groups]
