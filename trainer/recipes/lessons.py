"""Lessons of a nano model of words: samples made anew at every visit, and short trainings before the main one."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing.rooms.box_questions import BoxLesson, ask_boxes
from processing.rooms.lessons import LessonSamples
from processing.rooms.questions.wording import plural
from processing.rooms.samples import naming_samples
from processing.token_grid import TokenGrid
from trainer.data_collator import IDE3DDataCollator
from trainer.ide3d_trainer import IDE3DTrainer
from trainer.loop.mixture import MixtureDataset
from trainer.nano.build import search_by_words
from trainer.nano.lessons import lesson_kept, name_cells, read_regions
from trainer.nano.mentions import MentionCollator, MentionTrainer
from trainer.recipes.arguments import DataArguments
from trainer.recipes.benchmark_words import say_as_benchmark
from trainer.recipes.shares import read_shares
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = ["choose_trainer", "draw_lessons", "draw_validation", "list_box_texts", "take_lessons"]

LESSON_PASSES = 100  # samples of a room and kind that are not alike


def draw_lessons(
    rooms: list[dict], data: DataArguments, grid: TokenGrid, lessons: list[str] | None = None
) -> MixtureDataset:
    """Mix samples of the kinds in `lessons` (default: `data.lessons`), drawn anew at every visit.

    They are of the labelled rooms; other rooms are seen in the naming lesson alone.
    """
    shares = read_shares(lessons or data.lessons)
    labelled = rooms[: data.labelled_rooms]
    return MixtureDataset({name: make_lesson(labelled, data, grid, name) for name in shares}, shares)


def make_lesson(rooms: list[dict], data: DataArguments, grid: TokenGrid, name: str) -> LessonSamples:
    """Make samples of one kind, more than a training of hours visits."""
    options = {"num_passes": LESSON_PASSES, "seed": data.data_seed_rooms, "naming_depth": data.naming_depth}
    return LessonSamples(rooms, grid, name, **options, **lesson_options(data))


def lesson_options(data: DataArguments) -> dict:
    """Return what samples of training and of validation share."""
    options = {"max_questions": data.max_questions, "boxes": box_lesson(data)}
    if data.benchmark_share:
        options["rewording"] = partial(say_as_benchmark, share=data.benchmark_share)
    return options


def box_lesson(data: DataArguments) -> BoxLesson:
    """Return the settings of the lessons box and outline."""
    return BoxLesson(data.box_numbers, data.box_lenses, data.field_of_view)


def list_box_texts(rooms: list[dict], data: DataArguments) -> list[str]:
    """List the questions and answers of the lessons box and outline; none without them."""
    rng = np.random.default_rng(data.data_seed_rooms)
    asked = [
        question
        for lesson in ("box", "outline")
        if lesson in read_shares(data.lessons)
        for room in rooms
        for question in ask_boxes(room, rng, data.box_numbers, outlines=lesson == "outline")
    ]
    return [text for question in asked for text in (question["question"], question["answer"])]


def draw_validation(rooms: list[dict], data: DataArguments, grid: TokenGrid) -> list[dict]:
    """Make one sample of each kind and room, the same at every evaluation."""
    kinds = read_shares(data.lessons)
    return [sample for kind in kinds for sample in LessonSamples(rooms, grid, kind, **lesson_options(data))]


def choose_trainer(data: DataArguments) -> tuple[type[IDE3DDataCollator], Callable[..., IDE3DTrainer]]:
    """Choose collator and trainer, with the attention term if it has a weight."""
    if not data.mention_weight:
        return IDE3DDataCollator, IDE3DTrainer
    return MentionCollator, partial(MentionTrainer, mention_weight=data.mention_weight)


def take_lessons(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    rooms: list[dict],
    samples: list[dict] | MixtureDataset,
    data: DataArguments,
    args: IDE3DTrainingArguments,
    make_trainer: Callable[..., IDE3DTrainer] = IDE3DTrainer,
) -> None:
    """Train the lessons before the training, each once.

    An interrupted run goes on with the lesson that was not finished.

    Args:
        model: Training model with random weights; changed in place.
        collator: Collator of the training.
        rooms: Decoded training rooms.
        samples: Samples of the training, used where the recipe names no `lessons`.
        data: Data arguments of the recipe.
        args: Arguments of the training; `output_dir` keeps what a finished lesson has learned.
        make_trainer: Trainer of the reading lesson.
    """
    folder, grid = Path(args.output_dir) / "lessons", collator.grid
    if data.lesson_learning_rate is not None:
        args = copy.copy(args)  # not `replace`, which starts the processes anew
        args.learning_rate = data.lesson_learning_rate
    if data.lessons:
        words, pointed = make_lesson(rooms, data, grid, "naming"), make_lesson(rooms, data, grid, "region")
        read = draw_lessons(rooms, data, grid, data.reading_lessons)
    else:
        words = [sample for room in rooms for sample in naming_samples(room, grid, depth=data.naming_depth)]
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
    """List first tokens of colours, kinds and plurals, as a question has them."""
    colours = sorted({thing["colour"] for room in rooms for thing in room["objects"]} - {""})
    kinds = sorted({thing["category"] for room in rooms for thing in room["objects"]})
    groups = (colours, kinds, [plural(kind) for kind in kinds])
    return [[tokenizer.encode(f" {word}")[0] for word in group] for group in groups]
