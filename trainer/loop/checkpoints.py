"""Checkpoints of a run: which of them are whole, and the training-only heads beside the inference weights."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from processing.argument_rules import path_text
from processing.limits import load_json, parse_json
from processing.writing import sync_folder

__all__ = [
    "GEOMETRY_WEIGHTS",
    "CheckpointInProgress",
    "check_tied_weights",
    "check_whole",
    "clear_checkpoint",
    "find_damage",
    "get_last_checkpoint",
    "is_whole",
    "list_checkpoints",
    "load_depth_model",
    "load_heads",
    "save_heads",
    "written_whole",
]

GEOMETRY_WEIGHTS = "geometry_modules.safetensors"
VALIDATOR_CONFIG, VALIDATOR_PREFIX = "geometric_validator", "geometric_validator."  # of the metadata, of the weights
LAST_FILES = ("config.json", "optimizer.pt", "scheduler.pt")  # beside weights, what the first process writes


def is_whole(folder: str | Path) -> bool:
    """Say whether a checkpoint was written to its end.

    `Trainer` writes `trainer_state.json` last, behind weights, heads, optimizer and random state. It has the sizes of
    the files before it: a checkpoint that was deleted or copied in part is not whole.
    """
    return find_damage(folder) is None


def find_damage(folder: str | Path) -> str | None:
    """Say what a checkpoint lacks; None if it is whole."""
    state = _read_state(folder)
    if state is None:
        return f"`{TRAINER_STATE_NAME}`, which is written last, is missing or cut off"
    try:
        entry = state.get("stateful_callbacks", {}).get(CheckpointInProgress.__name__, {})
        sizes = dict(entry.get("attributes", {}).get("sizes", {}))
    except (AttributeError, TypeError, ValueError):
        return f"`{TRAINER_STATE_NAME}` has no state of callbacks that Trainer wrote"
    for path, size in ((Path(folder) / name, size) for name, size in sizes.items()):
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size} bytes, it was written with {size}"
    return None


def _read_state(folder: str | Path) -> dict[str, Any] | None:
    """Read what `Trainer` writes last; None if it is missing or cut off."""
    try:
        state = load_json(Path(folder) / TRAINER_STATE_NAME)
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def list_checkpoints(run: str | Path) -> list[Path]:
    """List the folders `checkpoint-<step>` of a run by their step, whole or not."""
    steps = {path: re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name) for path in Path(run).glob("*")}
    found = [path for path, match in steps.items() if match and path.is_dir()]
    return sorted(found, key=lambda path: int(steps[path][1]))


def get_last_checkpoint(run: str | Path) -> str | None:
    """Find the last whole checkpoint of a run; None without one, or without the folder.

    The function of this name in Transformers also gives a checkpoint whose writing was interrupted.
    """
    return next((str(path) for path in reversed(list_checkpoints(run)) if is_whole(path)), None)


def check_whole(folder: str | Path) -> None:
    """Raise ValueError unless `folder` was written to its end, changed since or not."""
    if _read_state(folder) is None:
        last = get_last_checkpoint(Path(folder).parent)
        instead = "there is no whole checkpoint beside it" if last is None else f"the last whole one is {last}"
        raise ValueError(
            f"{folder} is no valid checkpoint: {find_damage(folder)}. Expected a folder that was written to its end; "
            f"{instead}."
        )


def check_tied_weights(config: IDE3DConfig, folder: str | Path) -> None:
    """Raise ValueError unless checkpoint and model agree whether the head is tied.

    Trainer would load both weights of an untied checkpoint into the one of a tied model.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():  # adapters
        return
    is_tied = IDE3DConfig.from_pretrained(folder).tie_word_embeddings
    if is_tied != config.tie_word_embeddings:
        raise ValueError(
            f"{path} has tie_word_embeddings={is_tied}, the model has {config.tie_word_embeddings}: it has one weight "
            "where the other has two. Load the model from this folder by from_pretrained, then resume."
        )


def clear_checkpoint(folder: str | Path, has_rotation: bool) -> None:
    """Make room for a checkpoint that is about to be written.

    What an earlier run wrote to the same place goes, its state first: a run that is killed from here on leaves a
    folder that is not whole.

    Args:
        folder: Place of the checkpoint in the folder of its run.
        has_rotation: Whether Trainer will delete old checkpoints. It counts interrupted ones too, and would keep them
            in the place of whole ones; they are removed first.
    """
    interrupted = [path for path in list_checkpoints(Path(folder).parent) if has_rotation and not is_whole(path)]
    for path in {Path(folder), *interrupted}:
        (path / TRAINER_STATE_NAME).unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path)


class CheckpointInProgress(TrainerCallback, ExportableState):
    """Knows the folder of the checkpoint that is being written; None between checkpoints.

    Trainer asks for its state after all files but `trainer_state.json`, which the state goes into.
    """

    def __init__(self):
        self.folder: Path | None = None
        self.sizes: dict[str, int] = {}

    def state(self) -> dict[str, dict[str, Any]]:
        """Hand the files of the checkpoint to the disk and return their sizes."""
        if self.folder is None or not self.folder.is_dir():
            return {"args": {}, "attributes": {}}
        sync_folder(self.folder)
        # Other processes may still be writing others.
        names = {path.name: path for path in self.folder.glob("*.safetensors")}
        names |= {name: self.folder / name for name in LAST_FILES if (self.folder / name).is_file()}
        return {"args": {}, "attributes": {"sizes": {name: path.stat().st_size for name, path in names.items()}}}

    def on_train_begin(self, args: Any, state: TrainerState, *others: Any, **kwargs: Any) -> None:
        """Make the place that Trainer expects in the state of an older checkpoint."""
        state.stateful_callbacks.setdefault(type(self).__name__, {})

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        """Forget the checkpoint that is written; Trainer calls this behind it, in every process."""
        self.folder = None


@contextmanager
def written_whole(find: Callable[[], CheckpointInProgress], is_writer: bool) -> Iterator[None]:
    """Remove the checkpoint that a training was writing when it failed.

    Args:
        find: Gives the callback of the training; Trainer makes another one where it restores a checkpoint.
        is_writer: Whether this process writes checkpoints.

    Raises:
        OSError: If the training failed while a checkpoint was written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        folder = find().folder
        if folder is None or is_whole(folder):
            raise
        if is_writer:
            shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"The checkpoint of step {folder.name.rpartition('-')[2]} could not be written to {folder}: {error}. "
            "Earlier checkpoints there are whole; make room and resume from the last."
        ) from error


def save_heads(
    heads: dict[str, torch.Tensor], folder: str | Path, validator_config: GeometricValidatorConfig | None = None
) -> None:
    """Write the weights of the training-only heads into a checkpoint.

    Args:
        heads: Weights by their names.
        folder: Folder of the checkpoint.
        validator_config: Sizes of the depth decoder among them, which are kept in the metadata of the file.
    """
    heads = {key: value.detach().cpu().contiguous() for key, value in heads.items()}
    # One entry: safetensors writes several in random order, and a run that is resumed would write other bytes.
    metadata = {"format": "pt"}
    if validator_config is not None:
        metadata = {VALIDATOR_CONFIG: json.dumps(asdict(validator_config))}
    save_file(heads, Path(folder) / GEOMETRY_WEIGHTS, metadata=metadata)


def load_heads(model: IDE3DForConditionalGenerationWithGeometry, folder: str | Path) -> None:
    """Load the training-only heads of a checkpoint, if the model has any.

    Raises:
        FileNotFoundError: If the checkpoint holds no heads.
        OSError: If their file is truncated.
        ValueError: If they do not fit the model.
    """
    if not model.geometry_state_dict():
        return
    path = Path(folder) / GEOMETRY_WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the heads cannot be resumed. Train from the weights in this folder instead, "
            "without resume_from_checkpoint."
        )
    try:
        heads = load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is truncated or no safetensors file ({error}). Copy it again.") from error
    model.load_geometry_state_dict(heads)


def load_depth_model(folder: str | Path) -> IDE3DForConditionalGenerationWithGeometry:
    """Load the model of a checkpoint with its geometric validator, in evaluation mode.

    Raises:
        FileNotFoundError: If the folder holds no heads, as an export does.
        OSError: If their file is truncated.
        TypeError: If `folder` is no path.
        ValueError: If no folder can be called so. Also if there is no validator among the heads, its sizes were not
            kept, or weights do not fit.
    """
    path = Path(path_text(folder, "checkpoint")) / GEOMETRY_WEIGHTS
    if not os.path.isfile(path):  # False for what is no name of a file, where `Path.is_file` raises
        raise FileNotFoundError(
            f"There is no {GEOMETRY_WEIGHTS} in the checkpoint {str(folder)[:300]!r}. Expected a folder "
            "checkpoint-N of a training with a depth loss; exports hold no validator."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith(VALIDATOR_PREFIX)]  # noqa: SIM118 - no mapping
            weights = {name.removeprefix(VALIDATOR_PREFIX): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise OSError(f"{path} is truncated or no safetensors file ({error}). Copy it again.") from error
    if not weights:
        raise ValueError(f"{path} holds no geometric validator: the checkpoint was trained without a depth loss.")
    if VALIDATOR_CONFIG not in metadata:
        raise ValueError(
            f"{path} does not say the sizes of its validator: it was written by an earlier version. Resume the "
            "training for a step, which writes them."
        )
    entries = parse_json(metadata[VALIDATOR_CONFIG].encode("utf-8"), f"the metadata of {path}")
    try:
        config = GeometricValidatorConfig(**entries)
        model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(folder, validator_config=config)
        model.geometric_validator.load_state_dict(weights)
    except (RuntimeError, StrictDataclassError, TypeError) as error:
        raise ValueError(f"The validator in {path} does not fit the sizes beside it: {error}") from error
    return model.eval()
