"""Two lessons before the training proper, for models that start from nothing; every model can do without them.

From scratch, questions about a video stay on the most frequent answers for a long time: the visual tokens do not say
anything yet, and an answer has to find the region that is meant among hundreds of them. So a nano model first learns
to say what each visual token shows, then to read the region that a question points at, and then all at once.
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
    """Collates packed samples so that a question sees itself and the regions it points at, not the video.

    Samples whose questions point at nothing are collated as ever: what they ask for is in the video.

    The video is still encoded, because the regions are pooled from it. The chats of a sample are packed as ever, but
    the shared prefix is out of their sight: nothing competes with the region for the attention of the answer.

    Args:
        collator: Makes everything but the segments.

    Raises:
        ValueError: No sample of the batch packs its chats.
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
    """Say whether a lesson was taken before, loading what it left if so; else keep what it leaves.

    Of several processes, which all take the lesson and end with the same weights, the first one writes.

    Args:
        model: Taught in place.
        path: Where the weights after the lesson are kept, complete or not at all.
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
    """Leave the language model its embeddings and its head alone, so that words have to be in the visual tokens."""
    language_model = model.model.language_model
    layers, language_model.layers = language_model.layers, nn.ModuleList()
    try:
        yield
    finally:
        language_model.layers = layers


def lesson_arguments(
    args: IDE3DTrainingArguments, name: str, num_steps: int, **changes: Any
) -> IDE3DTrainingArguments:
    """Arguments of a lesson: those of the training, for `num_steps`, without checkpoints and evaluation."""
    return dataclasses.replace(
        args,
        output_dir=str(Path(args.output_dir) / name),
        max_steps=num_steps,
        save_strategy="no",
        eval_strategy="no",
        load_best_model_at_end=False,
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
    """First lesson, for tower and projector: name what each visual token shows; then standardise the regions.

    Batches are four times those of the training, the language model has no layers meanwhile, and only the terms that
    look at single frames and at the teacher are computed beside the words.

    Args:
        model: Trained in place.
        collator: That of the training.
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
    """Second lesson, for the language model: answer from the regions alone, without the terms of geometry.

    Args:
        model: Trained in place.
        collator: That of the training.
        pointed: Packed samples whose questions point at regions.
        args: Arguments of the training.
        num_steps: Steps of the lesson.
        make_trainer: Makes the trainer from what `IDE3DTrainer` takes.
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
