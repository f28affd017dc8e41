"""Arguments of a recipe that act on nothing: each is named once, before anything is built."""

import logging
from dataclasses import MISSING, fields
from typing import Any

from trainer.recipes.arguments import DataArguments, ModelArguments
from trainer.recipes.shares import BOX_LESSONS, read_shares

__all__ = ["list_idle", "warn_of_idle"]

logger = logging.getLogger(__name__)

OF_NANO = ("hidden_size", "text_layers", "rope_theta", "tie_word_embeddings", "patch_size", "spatial_pool_stride")
OF_ROOMS = ("num_rooms", "labelled_rooms", "num_validation_rooms", "data_seed_rooms", "room_style", "room_variations",
            "further_rooms", "further_style", "further_variations", "reference", "max_questions", "max_grounding",
            "grounding_share", "lessons", "place_samples", "naming_steps", "naming_depth", "reading_steps",
            "reading_lessons", "lesson_learning_rate", "word_search", "word_rooms", "benchmark_share",
            "mention_weight")  # fmt: skip
OF_BOXES = ("box_numbers", "box_lenses", "field_of_view")
OF_BENCHMARKS = ("tasks", "task_weights", "frames", "regions", "kept_scenes", "packed_tokens", "pseudo_geometry",
                 "confidence_drop_share")  # fmt: skip
OF_CHATS = ("chats", "validation_chats", "streaming")
OF_FILES = ("data_dir", "skip_invalid_poses", "num_validation_samples")  # of benchmarks and of chats
OF_DRY_RUN = ("planned_config", "planned_processes", "planned_sharding", "planned_teacher_size", "planned_text_tokens")


def list_idle(arguments: ModelArguments, data: DataArguments) -> dict[str, str]:
    """Return the arguments that were changed and have no effect, with the reason."""
    has_checkpoint, has_rooms = arguments.model_name_or_path is not None, data.source == "rooms"
    reasons: dict[str, tuple[bool, tuple[str, ...]]] = {
        "model_name_or_path names a checkpoint, which has its sizes": (has_checkpoint, OF_NANO),
        "a nano model is built, no checkpoint is loaded": (not has_checkpoint, ("attention",)),
        "language_model is not set": (arguments.language_model is None, ("word_rooms",)),
        "lora_rank is 0": (not arguments.lora_rank, ("lora_alpha", "lora_dropout")),
        "validator is none": (arguments.validator == "none", ("validator_stride", "validator_chunk")),
        "teacher is not point_map": (arguments.teacher != "point_map", ("teacher_camera", "teacher_wavelengths")),
        "source is benchmarks": (data.source == "benchmarks", (*OF_ROOMS, *OF_BOXES, *OF_CHATS)),
        "source is chats": (data.source == "chats", (*OF_ROOMS, *OF_BOXES[1:], *OF_BENCHMARKS)),
        "source is chats, which write numbers as they are": (
            data.source == "chats" and data.box_numbers != "tokens",  # tokens are added to the tokenizer
            OF_BOXES[:1],
        ),
        "source is rooms": (has_rooms, (*OF_BENCHMARKS, *OF_CHATS, *OF_FILES)),
        "pseudo_geometry is not set": (data.pseudo_geometry is None, ("confidence_drop_share",)),
        "dry_run is not set": (not arguments.dry_run, OF_DRY_RUN),
        "naming_steps and reading_steps are 0": (
            has_rooms and not (data.naming_steps or data.reading_steps),
            ("lesson_learning_rate",),
        ),
        "lessons have neither word nor view": (
            has_rooms and not {"word", "view"} & {*read_shares(data.lessons)},
            ("benchmark_share",),
        ),
        "lessons have no boxes": (has_rooms and not {*BOX_LESSONS} & {*read_shares(data.lessons)}, OF_BOXES),
        "further_rooms is 0": (has_rooms and not data.further_rooms, ("further_style", "further_variations")),
        "lessons are not set": (has_rooms and not data.lessons, ("labelled_rooms",)),
        "naming_steps is 0": (has_rooms and not data.naming_steps, ("naming_depth",)),
        "reading_steps is 0": (has_rooms and not data.reading_steps, ("reading_lessons",)),
    }
    changed = {**_list_changed(arguments), **_list_changed(data)}
    return {name: reason for reason, (is_so, names) in reasons.items() if is_so for name in names if name in changed}


def warn_of_idle(arguments: ModelArguments, data: DataArguments) -> None:
    """Say which arguments have no effect."""
    for name, reason in list_idle(arguments, data).items():
        logger.warning("%s has no effect: %s.", name, reason)


def _list_changed(arguments: Any) -> dict[str, Any]:
    changed = {}
    for item in fields(arguments):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if getattr(arguments, item.name) != default:
            changed[item.name] = getattr(arguments, item.name)
    return changed
