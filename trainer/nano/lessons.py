"""Two optional lessons before the training proper, for models that start from nothing.

From scratch, questions about a video stay on the most frequent answers for a long time. The visual tokens do not say
anything yet, and an answer has to find its region among hundreds of them. So a nano model first learns to name what
each visual token shows, then to read the region that a question points at. Then it learns all at once.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.distributed import get_rank, is_initialized

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing.writing import whole_file
from trainer.data_collator import IDE3DDataCollator
from trainer.ide3d_trainer import IDE3DTrainer
from trainer.nano.build import standardize_regions
from trainer.nano.cell_naming import CellNamingCollator
from trainer.training_arguments import IDE3DTrainingArguments

logger = logging.getLogger(__name__)

_STANDARD_BATCHES = 25  # some thousand regions; more do not change mean and deviation


class RegionReadingCollator:
    """Collator of packed samples whose questions see only themselves and their regions.

    Samples whose questions point at nothing are collated as usual: their answers are in the video.

    The video is still encoded, because the regions are pooled from it. The chats of a sample are packed as usual, but
    they do not see the shared prefix: nothing competes with the region for the attention of the answer.

    Args:
        collator: Collator of everything but the segments.

    Raises:
        ValueError: If no sample of the batch packs its chats.
    """

    def __init__(self, collator: IDE3DDataCollator):
        self.collator = collator

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate."""
        batch = self.collator(samples)
        if "segment_ids" not in batch:
            if all(isinstance(sample["messages"][0], Sequence) for sample in samples):
                return batch  # a single question each: there is no other whose regions could be meant
            raise ValueError("Expected samples whose `messages` is a list of chats about one video, got single chats.")
        segments = batch["segment_ids"]
        # A segment sees the prefix, which is segment 0, and itself. As a segment of its own the prefix is not seen.
        pointing = (batch["region_references"] >= 0).any(1, keepdim=True) if "region_references" in batch else False
        return {**batch, "segment_ids": segments.masked_fill((segments == 0) & pointing, int(segments.max()) + 1)}


@contextmanager
def lesson_kept(model: IDE3DForConditionalGenerationWithGeometry, path: Path) -> Iterator[bool]:
    """Load the weights of a lesson that was taken before, or else keep them.

    It gives whether the lesson was taken. Of several processes, which end with the same weights, the first one writes.

    Args:
        model: Training model; taught in place.
        path: File of the weights after the lesson, complete or absent.
    """
    if path.is_file():
        logger.info("The lesson was taken before: its weights are loaded from %s.", path)
        load_model(model, path)
        yield True
        return
    yield False
    if is_initialized() and get_rank() != 0:
        return
    with whole_file(path) as unfinished:
        save_model(model, str(unfinished))


@contextmanager
def without_layers(model: IDE3DForConditionalGenerationWithGeometry) -> Iterator[None]:
    """Take all layers out of the language model: visual tokens must hold the words."""
    language_model = model.model.language_model
    layers, language_model.layers = language_model.layers, nn.ModuleList()
    try:
        yield
    finally:
        language_model.layers = layers


def lesson_arguments(
    args: IDE3DTrainingArguments, name: str, num_steps: int, **changes: Any
) -> IDE3DTrainingArguments:
    """Arguments of a lesson: those of the training, for `num_steps`, without checkpoints and evaluation.

    The schedule of the geometry terms counts steps of the training: a lesson that has these terms has them in full.
    """
    return dataclasses.replace(
        args,
        output_dir=str(Path(args.output_dir) / name),
        max_steps=num_steps,
        save_strategy="no",
        eval_strategy="no",
        load_best_model_at_end=False,
        geometry_start_step=0,
        geometry_warmup_steps=0,
        geometry_decay_steps=0,
        **changes,
    )


def name_cells(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    samples: Sequence[Mapping[str, Any]],
    pointed: Sequence[Mapping[str, Any]],
    args: IDE3DTrainingArguments,
    num_steps: int,
) -> None:
    """Teach tower and projector to name what each visual token shows; then standardise the regions.

    This is the first lesson. Batches are four times those of the training, and the language model has no layers
    meanwhile. Beside the words, only the terms of single frames and of the teacher are computed.

    Args:
        model: Training model; trained in place.
        collator: Collator of the training.
        samples: Samples with `cell_words`, see `processing.rooms.samples.naming_samples`.
        pointed: Samples with regions, which are then standardised.
        args: Arguments of the training.
        num_steps: Steps of the lesson.
    """
    lesson = lesson_arguments(
        args,
        "naming",
        num_steps,
        per_device_train_batch_size=4 * args.per_device_train_batch_size,
        vision_learning_rate=None,
        cross_view_weight=0.0,
        overlap_weight=0.0,
        consistency_weight=0.0,
    )
    with without_layers(model):
        IDE3DTrainer(model, lesson, train_dataset=samples, data_collator=CellNamingCollator(collator)).train()
    size = args.per_device_train_batch_size
    pointed = [pointed[place] for place in range(min(len(pointed), _STANDARD_BATCHES * size))]
    standardize_regions(model, (collator(pointed[at : at + size]) for at in range(0, len(pointed), size)))


def read_regions(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    pointed: Sequence[Mapping[str, Any]],
    args: IDE3DTrainingArguments,
    num_steps: int,
    make_trainer: Callable[..., IDE3DTrainer] = IDE3DTrainer,
) -> None:
    """Teach the language model, as the second lesson, to answer from the regions alone.

    Terms of geometry are left out.

    Args:
        model: Training model; trained in place.
        collator: Collator of the training.
        pointed: Packed samples whose questions point at regions.
        args: Arguments of the training.
        num_steps: Steps of the lesson.
        make_trainer: Class of the trainer, or a function of the same arguments as `IDE3DTrainer`.
    """
    lesson = lesson_arguments(
        args,
        "reading",
        num_steps,
        depth_weight=0.0,
        cross_view_weight=0.0,
        overlap_weight=0.0,
        consistency_weight=0.0,
        distillation_weight=0.0,
    )
    make_trainer(model, lesson, train_dataset=pointed, data_collator=RegionReadingCollator(collator)).train()


__all__ = ["RegionReadingCollator", "lesson_arguments", "lesson_kept", "name_cells", "read_regions", "without_layers"]
