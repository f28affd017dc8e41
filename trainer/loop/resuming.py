"""Whether a checkpoint can be resumed: every file that Trainer will read is looked at before it is loaded."""

import logging
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import TrainerState
from transformers.trainer import (
    OPTIMIZER_NAME,
    SCALER_NAME,
    SCHEDULER_NAME,
    TRAINER_STATE_NAME,
    TRAINING_ARGS_NAME,
    safe_globals,
)
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME

from processing.limits import load_json
from trainer.field_rules import check_number
from trainer.loop.checkpoints import (
    check_tied_weights,
    check_whole,
    find_damage,
    get_last_checkpoint,
    is_whole,
    list_checkpoints,
)
from trainer.loop.model_parts import PARTS

__all__ = ["check_optimizer", "check_resumable", "choose_checkpoint"]

logger = logging.getLogger(__name__)

ADAPTERS = "adapter_model.safetensors"
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)


def choose_checkpoint(resume: str | os.PathLike | bool | None, run: str) -> str | None:
    """Choose the checkpoint that a training goes on from.

    Args:
        resume: Folder of a checkpoint, True for the last whole one of the run, False or None for none.
        run: Folder of the run.

    Raises:
        TypeError: If `resume` is none of these.
        ValueError: If there is no whole checkpoint there.
    """
    if resume is None or resume is False:
        return None
    if resume is True:
        last = get_last_checkpoint(run)
        if last is None:
            raise ValueError(f"{run} holds no valid checkpoint; train without resuming first.")
        if (newest := list_checkpoints(run)[-1]) != Path(last):
            logger.warning("%s is not whole (%s); the training goes on from %s.", newest, find_damage(newest), last)
        return last
    if not isinstance(resume, (str, os.PathLike)) or not str(resume):
        raise TypeError(f"resume_from_checkpoint must be the folder of a checkpoint, or True, got {resume!r}.")
    check_whole(resume)
    return os.fspath(resume)


def check_resumable(folder: str, model: nn.Module, core: nn.Module, num_processes: int, process: int) -> None:
    """Check the files of a whole checkpoint that are not sharded; nothing of it runs.

    A part that is missing is a warning: a checkpoint may be of the model alone (`save_only_model`), or of a run in
    another number of processes.

    Args:
        folder: Folder of the checkpoint.
        model: Training model, maybe with adapters.
        core: Training model without them.
        num_processes: Number of processes of this training.
        process: Place of this process among them.

    Raises:
        OSError: If a file is damaged.
        ValueError: If the weights are not those of this model.
    """
    place = Path(folder)
    random_state = f"rng_state_{process}.pth" if num_processes > 1 else "rng_state.pth"
    try:
        state = TrainerState(**_read_json(place / TRAINER_STATE_NAME))
        check_number("global_step", state.global_step, is_whole=True)
    except (TypeError, ValueError) as error:  # of another version, say
        raise _damaged(place / TRAINER_STATE_NAME, error) from error
    if model is core:
        if (place / CONFIG_NAME).exists():
            _read_json(place / CONFIG_NAME)
            check_tied_weights(core.config, folder)
        _check_weights(place, core)
    elif (place / ADAPTERS).is_file():
        list(_read_header(place / ADAPTERS))
    keys = {OPTIMIZER_NAME: ("state", "param_groups"), SCHEDULER_NAME: (), SCALER_NAME: ()}
    for name, wanted in {**keys, random_state: ("python", "numpy", "cpu")}.items():
        if (place / name).exists():
            _read_tensors(place / name, wanted)
    named = {
        OPTIMIZER_NAME: "the optimizer and the schedule of the learning rate start anew",
        SCHEDULER_NAME: "the optimizer and the schedule of the learning rate start anew",
        random_state: "random numbers, such as those of dropout, are others than in a run without a break",
        TRAINING_ARGS_NAME: "it is not known what this checkpoint was trained with",
        **({CONFIG_NAME: "it is not known what model the weights are of"} if model is core else {}),
    }
    for name, consequence in named.items():
        if not (place / name).exists():
            logger.warning("%s is missing: %s.%s", place / name, consequence, _advice(place))


def check_optimizer(optimizer: torch.optim.Optimizer, folder: str) -> None:
    """Raise ValueError unless a checkpoint's optimizer has the parameter groups of this one."""
    path = Path(folder) / OPTIMIZER_NAME
    if not path.exists():
        return
    stored = [len(group["params"]) for group in _read_tensors(path, ("param_groups",))["param_groups"]]
    present = [len(group["params"]) for group in optimizer.param_groups]
    if stored != present:
        raise ValueError(
            f"{path} has parameter groups of {stored} weights, this training of {present}. Resume with the "
            "frozen_parts, learning rates by part and adapters of that run, or train from its weights anew."
        )


def _advice(place: Path) -> str:
    """Say from where else the run can go on."""
    step = place.name.rpartition("-")[2]
    earlier = [
        path
        for path in list_checkpoints(place.parent)
        if is_whole(path) and (not step.isdecimal() or int(path.name.rpartition("-")[2]) < int(step))
    ]
    if earlier:
        return f" Copy the file again, or resume from the checkpoint before it, {earlier[-1]}."
    return " Copy the file again; there is no whole checkpoint before it."


def _damaged(path: Path, what: object) -> OSError:
    return OSError(f"{path} cannot be read ({' '.join(str(what).split())[:200]}).{_advice(path.parent)}")


def _read_json(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    if not path.is_file():
        raise _damaged(path, "expected a file")
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise _damaged(path, f"expected an object with {', '.join(keys) or 'keys'}, got {str(content)[:60]}")
    return content


def _read_tensors(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a file of torch, its tensors only mapped; no code of it runs."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        raise _damaged(path, "expected an archive of torch.save; it is none, or its end is cut off")
    try:
        with safe_globals():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        raise _damaged(path, error or type(error).__name__) from error
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise _damaged(path, f"expected a dict with {', '.join(keys) or 'keys'}, got {type(content).__name__}")
    return content


def _read_header(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Give name and shape of each tensor of a safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                yield name, file.get_slice(name).get_shape()
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _check_weights(place: Path, core: nn.Module) -> None:
    """Compare names and shapes of the stored weights with those of the model."""
    index = place / SAFE_WEIGHTS_INDEX_NAME
    names = [SAFE_WEIGHTS_NAME]
    if not (place / SAFE_WEIGHTS_NAME).is_file():
        if (place / WEIGHTS_NAME).is_file():  # of an old version; its names are known only when it is loaded
            return
        if index.is_file():
            names = sorted(set(_read_json(index, ("weight_map",))["weight_map"].values()))
    if missing := [name for name in names if not (place / name).is_file()]:
        raise FileNotFoundError(f"{place / missing[0]} is missing.{_advice(place)}")
    stored = {name: shape for file in names for name, shape in _read_header(place / file)}
    expected = {
        name: list(weight.shape)
        for name, weight in core.named_parameters()  # a tied weight once
        if not name.startswith(PARTS["geometry"])
    }
    absent = sorted(set(expected) - set(stored))
    other = [name for name, shape in expected.items() if name in stored and stored[name] != shape]
    if absent or other:
        found = (
            f"has no {absent[0]} ({len(absent)} of {len(expected)} weights are missing)"
            if absent
            else (f"has {other[0]} of shape {stored[other[0]]}, this model of shape {expected[other[0]]}")
        )
        raise ValueError(
            f"{place / names[0]} {found}. It is no checkpoint of this model, or it is damaged.{_advice(place)}"
        )
