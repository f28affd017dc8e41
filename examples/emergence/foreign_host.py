"""Build a Qwen3-VL of nano size, and the samples and batches of its training: a word for each visual token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLVideoProcessor, set_seed

from processing.token_grid import TokenGrid
from trainer.teachers.point_map import PointMapTeacher

from .questions import split_references
from .rooms import COLOUR_WORDS, COLUMN_WORDS, KIND_WORDS, ROW_WORDS, RoomArrays

__all__ = [
    "NUMBERS",
    "ROOM_PROMPTS",
    "HostCollator",
    "HostSizes",
    "QuestionSteps",
    "RoomSteps",
    "answer_words",
    "build_host",
    "number_word",
    "read_answers",
]

ROOM_PROMPTS = ("colour?", "kind?", "column?", "row?")  # in the order of `RoomArrays.cell_words`
ANSWER_PROMPTS = {"position": ("x?", "y?", "z?"), "distance": ("distance?",), "colour": ("colour?",)}
PAD, START, END, VIDEO, IMAGE = range(5)
NUMBERS = np.arange(-60, 121) / 10  # metres
IGNORED_LABEL = -100


def number_word(value: float) -> str:
    """Return the word of the number that is nearest to a length in metres."""
    return f"{NUMBERS[np.abs(NUMBERS - value).argmin()]:.1f}"


PROMPTS = dict.fromkeys((*ROOM_PROMPTS, *(word for words in ANSWER_PROMPTS.values() for word in words)))
SPOKEN = (*PROMPTS, *COLOUR_WORDS, *KIND_WORDS, *COLUMN_WORDS, *ROW_WORDS, *map(number_word, NUMBERS))
WORDS = {word: IMAGE + 1 + place for place, word in enumerate(dict.fromkeys(SPOKEN))}


@dataclass(frozen=True)
class HostSizes:
    """Sizes of the model and its frames.

    Args:
        image_size: Side of a frame in pixels.
        patch_size: Side of a patch in pixels; each patch is a visual token.
        hidden_size: Width of tower and language model, a multiple of 48.
        vision_layers: Number of layers of the tower.
        text_layers: Number of layers of the language model.
    """

    image_size: int = 64
    patch_size: int = 8
    hidden_size: int = 96
    vision_layers: int = 4
    text_layers: int = 2

    @property
    def grid(self) -> TokenGrid:
        """Token grid of a frame."""
        return TokenGrid(self.image_size, self.patch_size, 1)


def build_host(sizes: HostSizes, seed: int) -> Qwen3VLForConditionalGeneration:
    """Build a Qwen3-VL with random weights that a seed sets.

    It is the class of Transformers, and the tower, merger and multimodal positions are those of the family. Its time
    steps are single frames and its visual tokens single patches, as small frames have few of them.
    """
    width = sizes.hidden_size
    vision = {
        "depth": sizes.vision_layers,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": 4,
        "patch_size": sizes.patch_size,
        "spatial_merge_size": 1,
        "temporal_patch_size": 1,
        "out_hidden_size": width,
        "num_position_embeddings": sizes.grid.rows * sizes.grid.cols,
        "deepstack_visual_indexes": [sizes.vision_layers // 2],
        "initializer_range": 0.05,
    }
    text = {
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": width // 4,
        "vocab_size": IMAGE + 1 + len(WORDS),
        "pad_token_id": PAD,
        "bos_token_id": START,
        "eos_token_id": END,
        "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [width // 24] * 3},
    }
    ids = {
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
    }
    set_seed(seed)
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(vision_config=vision, text_config=text, **ids))


def draw_order(length: int, count: int, seed: int) -> np.ndarray:
    """Return the indices of so many visits: all in random order, again and again."""
    rng = np.random.default_rng([seed, 0])
    return np.concatenate([rng.permutation(length) for _ in range(-(-count // length))])[:count]


class RoomSteps(Dataset):
    """Rooms without questions: each visit asks for colours, kinds, columns or rows of all cells.

    Args:
        rooms: Rooms.
        count: Number of visits.
        seed: Seed of the order.
    """

    def __init__(self, rooms: RoomArrays, count: int, seed: int):
        self.rooms, self.seed = rooms, seed
        self.order = draw_order(len(rooms), count, seed)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, visit: int) -> dict[str, Any]:
        index = int(self.order[visit])
        kind = int(np.random.default_rng([self.seed, 1, visit]).integers(len(ROOM_PROMPTS)))
        return {**self.rooms[index], "prompt": ROOM_PROMPTS[kind], "words": self.rooms.cell_words(index, kind)}


class QuestionSteps(Dataset):
    """Views with questions that point at objects.

    The answer is the word of each cell of the object.

    Args:
        samples: Samples of `sample_questions`.
        count: Number of visits.
        seed: Seed of the order.
        jitter: Standard deviation in metres of what is added to a number, anew at every visit.
    """

    def __init__(self, samples: Sequence[Mapping], count: int, seed: int, jitter: float):
        self.samples, self.seed, self.jitter = samples, seed, jitter
        self.order = draw_order(len(samples), count, seed)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, visit: int) -> dict[str, Any]:
        sample, rng = self.samples[int(self.order[visit])], np.random.default_rng([self.seed, 1, visit])
        asked = sorted({prompt for kind in kinds_of(sample) for prompt in ANSWER_PROMPTS[kind]})
        prompt = asked[int(rng.integers(len(asked)))] if asked else "colour?"
        return {"frames": sample["frames"], "prompt": prompt, "words": answer_words(sample, prompt, rng, self.jitter)}


def kinds_of(sample: Mapping) -> set[str]:
    """Return the types of a sample's questions that the host is asked."""
    return {question["type"] for question in sample["questions"]} & set(ANSWER_PROMPTS)


def answer_words(sample: Mapping, prompt: str, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Return the words (1, rows, cols) that answer a prompt, "" where no question points.

    Args:
        sample: Sample of `sample_questions` or `read_asked`.
        prompt: One of the prompts of `ANSWER_PROMPTS`.
        rng: Source of the errors of numbers.
        jitter: Standard deviation of these errors in metres.
    """
    masks = np.asarray(sample["region_masks"])
    words = np.full(masks.shape[1:], "", dtype="U16")
    for question, own in zip(sample["questions"], split_references(sample), strict=True):
        prompts = ANSWER_PROMPTS.get(question["type"], ())
        if prompt not in prompts:
            continue
        if question["type"] == "colour":
            word = question["answer"].lower().strip(" .")
        else:
            word = number_word(question["value"][prompts.index(prompt)] + rng.normal(0, jitter))
        words[masks[own[0]]] = word
    return words


class HostCollator:
    """Collates a prompt, a video and the words of its cells, for a plain `Trainer`.

    The words are labels: each visual token is to be followed by the word of its cell. The model's own loss shifts
    labels by one.

    Args:
        sizes: Sizes of model and frames.
        teacher: Teacher whose features the batches have, beside depth and cameras; None: neither.
    """

    def __init__(self, sizes: HostSizes, teacher: PointMapTeacher | None = None):
        self.grid, self.teacher = sizes.grid, teacher
        pixels = sizes.image_size**2
        self.processor = Qwen3VLVideoProcessor(
            size={"shortest_edge": pixels, "longest_edge": 1000 * pixels},
            patch_size=sizes.patch_size,
            merge_size=1,
            temporal_patch_size=1,
            cap_pixels_per_frame=False,
        )

    def __call__(self, samples: Sequence[Mapping]) -> dict[str, Any]:
        """Collate samples with equally many frames."""
        videos = [torch.from_numpy(np.asarray(sample["frames"])).permute(0, 3, 1, 2) for sample in samples]
        batch = dict(self.processor(videos, do_sample_frames=False, return_tensors="pt"))
        cells = self.grid.rows * self.grid.cols
        rows = [
            [WORDS[sample["prompt"]], *([START, *[VIDEO] * cells, END] * len(video))]
            for sample, video in zip(samples, videos, strict=True)
        ]
        ids = torch.tensor(rows)
        labels = torch.full_like(ids, IGNORED_LABEL)
        for row, sample in zip(range(len(rows)), samples, strict=True):
            places = (ids[row] == VIDEO).nonzero().flatten()
            words = np.asarray(sample["words"]).reshape(-1)
            known = [place for place, word in enumerate(words) if word]
            if known:
                labels[row, places[known] + 1] = torch.tensor([WORDS[words[place]] for place in known])
        batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        batch["mm_token_type_ids"] = 2 * (ids == VIDEO).int()
        if self.teacher is not None:
            batch |= self._collate_geometry(samples)
        return batch

    def _collate_geometry(self, samples: Sequence[Mapping]) -> dict[str, list[Tensor]]:
        keys = ("depth", "intrinsics", "camera_to_world")
        videos = [{key: torch.from_numpy(np.asarray(sample[key])).float() for key in keys} for sample in samples]
        features = [self.teacher.compute_features(None, video, self.grid) for video in videos]
        return {**{key: [video[key] for video in videos] for key in keys}, "teacher_features": features}


@torch.no_grad()
def read_answers(
    model: Qwen3VLForConditionalGeneration, collator: HostCollator, asked: Sequence[Mapping]
) -> list[dict[int, str]]:
    """Answer the questions of views by the words that follow the cells of their objects.

    The answer is the word that is most probable on average over an object's cells, among numbers or colours.

    Args:
        model: Model in evaluation mode.
        collator: Collator without a teacher.
        asked: Samples of `read_asked`.

    Returns:
        By sample: the answers by place of their question; a point is three numbers.
    """
    choices = {"colour?": COLOUR_WORDS}
    found: list[dict[int, list[str]]] = [{} for _ in asked]
    for prompt in dict.fromkeys(prompt for prompts in ANSWER_PROMPTS.values() for prompt in prompts):
        blank = {"prompt": prompt, "words": np.full((1, *collator.grid.shape), "")}
        batch = collator([{**blank, "frames": sample["frames"]} for sample in asked])
        batch.pop("labels")
        words = choices.get(prompt, [f"{value:.1f}" for value in NUMBERS])
        logits = model(**batch).logits[:, :, [WORDS[word] for word in words]]
        for own, ids, scores, sample in zip(found, batch["input_ids"], logits, asked, strict=True):
            if not sample["questions"]:
                continue
            chances = scores[ids == VIDEO].float().softmax(-1)  # (cells, words)
            masks = np.asarray(sample["region_masks"])[:, 0].reshape(len(sample["region_masks"]), -1)
            pointed = split_references(sample)
            for place, question in enumerate(sample["questions"]):
                if prompt in ANSWER_PROMPTS.get(question["type"], ()):
                    cells = torch.from_numpy(masks[pointed[place][0]])
                    own.setdefault(place, []).append(words[int(chances[cells].mean(0).argmax())])
    return [{place: " ".join(words) for place, words in own.items()} for own in found]
