"""Make the steps of a training, the same for all arms of a seed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer import IDE3DDataCollator
from trainer.nano.lessons import RegionReadingCollator

from .questions import choose_questions, jitter_answers
from .rooms import RoomArrays

__all__ = ["StudyCollator", "StudySteps"]


class StudySteps(Dataset):
    """Steps of a training; item k is the list of samples of step k.

    It follows from the arguments and k alone.

    Args:
        rooms: Rooms without questions.
        questions: Samples of `sample_questions`; empty for a phase without.
        num_steps: Number of steps.
        rooms_per_step: Number of rooms of a step, 0 for none.
        questions_per_step: Number of question samples of a step.
        seed: Seed of the order.
        num_words: Number of cells of a video that get a word to name; None: all.
        max_questions: Most questions of a view in a step, sampled anew at every visit; None: all.
        answer_jitter: Standard deviation in metres of the errors of `jitter_answers`.
    """

    def __init__(
        self,
        rooms: RoomArrays,
        questions: Sequence[dict],
        *,
        num_steps: int,
        rooms_per_step: int,
        questions_per_step: int = 0,
        seed: int = 0,
        num_words: int | None = None,
        max_questions: int | None = None,
        answer_jitter: float = 0.0,
    ):
        self.rooms, self.questions, self.seed = rooms, questions, seed
        self.num_words, self.max_questions, self.answer_jitter = num_words, max_questions, answer_jitter
        self.room_order = _endless_order(len(rooms), num_steps * rooms_per_step, [seed, 0])
        self.question_order = _endless_order(len(questions), num_steps * questions_per_step, [seed, 1])
        self.room_order = self.room_order.reshape(num_steps, rooms_per_step)
        self.question_order = self.question_order.reshape(num_steps, questions_per_step)

    def __len__(self) -> int:
        return len(self.room_order)

    def __getitem__(self, step: int) -> list[dict]:
        samples = []
        for position, index in enumerate(self.question_order[step]):
            rng = np.random.default_rng([self.seed, 3, step, position])
            sample = choose_questions(self.questions[index], self.max_questions, rng)
            samples.append(jitter_answers(sample, self.answer_jitter, rng) if self.answer_jitter else sample)
        for position, index in enumerate(self.room_order[step]):
            rng = np.random.default_rng([self.seed, 2, step, position])
            words = self.rooms.cell_words(index, int(rng.integers(4)))
            if self.num_words is not None:
                chosen = np.zeros(words.size, bool)
                chosen[rng.choice(words.size, min(self.num_words, words.size), replace=False)] = True
                words = np.where(chosen.reshape(words.shape), words, "")
            samples.append({**self.rooms[index], "cell_words": words})
        return samples


def _endless_order(size: int, count: int, seed: list[int]) -> np.ndarray:
    """Return `count` indices below `size`: one permutation after the other."""
    if count == 0:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


class StudyCollator:
    """Collates items of `StudySteps`.

    Questions see only the regions they point at; visual tokens name their cells.

    Args:
        collator: Collator of single samples.
    """

    def __init__(self, collator: IDE3DDataCollator):
        self.collator = collator
        self.reading = RegionReadingCollator(collator)
        self.protocol, self.teacher = collator.protocol, collator.teacher

    def __call__(self, steps: Sequence[list[dict]]) -> dict[str, Tensor]:
        """Collate the samples of all steps that are given, usually one."""
        samples = [sample for step in steps for sample in step]
        has_questions = any("questions" in sample for sample in samples)
        batch = (self.reading if has_questions else self.collator)(samples)
        processor = self.collator.processor
        labels = batch["labels"].clone()
        for index, sample in enumerate(samples):
            if "cell_words" not in sample:
                continue
            words = sample["cell_words"]
            cells = (batch["input_ids"][index] == processor.video_token_id).nonzero().flatten()
            cells = self.collator.grid.split(cells)
            for word in np.unique(words).tolist():
                if word:  # a label belongs to the position before it
                    token = processor.tokenizer.encode(word)[0]
                    labels[index, cells[torch.from_numpy(words == word)] + 1] = token
        return {**batch, "labels": labels}
