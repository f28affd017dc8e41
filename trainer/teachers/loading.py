"""Teachers by the words of a command line or a recipe."""

from pathlib import Path
from typing import Any

import torch

from processing.argument_rules import path_text
from trainer.field_rules import check_choice, check_text, whole_number
from trainer.geometry.checks import PROTOCOLS, Protocol
from trainer.teachers.depth_anything_3 import DepthAnything3Teacher
from trainer.teachers.original import OriginalStoreTeacher
from trainer.teachers.point_map import PointMapTeacher
from trainer.teachers.protocol import Teacher
from trainer.teachers.store import TeacherStore
from trainer.teachers.transformers_backbone import TransformersTeacher
from trainer.teachers.vggt import VGGTTeacher

__all__ = ["KINDS", "load_teacher"]

KINDS = ("point_map", "vggt", "depth_anything_3", "vggt_sliced")


def load_teacher(
    kind: str,
    *,
    weights: str | None = None,
    licence: str | None = None,
    data_dir: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    layer: int | None = None,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    protocol: Protocol = "clean",
) -> Teacher:
    """Make the teacher that a command line or a recipe names.

    Args:
        kind: "point_map"; "vggt", "depth_anything_3" (packages that you install); "vggt_sliced" (the original's files
            in `data_dir`); else a folder of stored features, or a vision backbone of Transformers by folder or name.
        weights: Hub name or path of the weights of "vggt" and "depth_anything_3".
        licence: Licence of the weights, where no model card states it.
        data_dir: Folder in the public layout, for "vggt_sliced".
        image_size: Height and width of the input of a Transformers backbone, in pixels.
        layer: Layer of a backbone; see `TransformersTeacher` and `DepthAnything3Teacher`.
        batch_size: Number of frames at a time of a Transformers backbone.
        device: Device of the network.
        dtype: Type of the network.
        protocol: Rule that pools patches, see `pool_teacher_features`; stored features have theirs.

    Raises:
        ImportError: If a package is not installed.
        OSError: If weights or files do not exist.
        TypeError: If an argument is of another type; the message names it.
        ValueError: If this teacher does not have an option, or refuses its value.
    """
    kind = path_text(kind, "kind")
    check_choice("`protocol`", protocol, PROTOCOLS)
    _check_network(batch_size, device, dtype)
    for name, path in {"weights": weights, "data_dir": data_dir}.items():
        if path is not None:
            path_text(path, name)
    if licence is not None:
        check_text("`licence`", licence)
    if layer is not None:
        layer = whole_number("`layer`", layer, 0)
    if image_size is not None:
        image_size = _as_size(image_size)
    given: dict[str, Any] = {"weights": weights, "licence": licence, "image_size": image_size, "layer": layer}
    given = {name: value for name, value in given.items() if value is not None}
    network: dict[str, Any] = {"device": device, "protocol": protocol}
    if kind == "vggt":
        return VGGTTeacher(**_allowed(kind, given, "weights", "licence"), dtype=dtype, **network)
    if kind == "depth_anything_3":
        return DepthAnything3Teacher(**_allowed(kind, given, "weights", "licence", "layer"), **network)
    if kind == "vggt_sliced":
        if data_dir is None:
            raise ValueError("`vggt_sliced` needs `data_dir`, the folder that holds the original's files.")
        return OriginalStoreTeacher(data_dir, **_allowed(kind, given, "licence"), protocol=protocol)
    if kind == "point_map":
        return PointMapTeacher(**_allowed(kind, given))
    if not Path(kind).exists() and "/" not in kind:
        raise ValueError(f"A teacher is one of {', '.join(KINDS)}, a folder, or a name on the Hub, got {kind!r}.")
    if next(Path(kind).rglob("*.safetensors"), None) and not (Path(kind) / "config.json").is_file():
        return TeacherStore(kind, **_allowed("a folder of features", given))
    options = _allowed(kind, given, "licence", "image_size", "layer")
    return TransformersTeacher(kind, **options, batch_size=batch_size, dtype=dtype, **network)


def _check_network(batch_size: Any, device: Any, dtype: Any) -> None:
    """Check how a network runs.

    Raises:
        TypeError: If one is of another type.
        ValueError: If there is no such device, or the type holds no fractions.
    """
    whole_number("`batch_size`", batch_size)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be a type of fractions such as torch.float32, got {dtype!r:.100}.")
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f'`device` must be a text such as "cpu" or "cuda:0", got {device!r:.100}.')
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'`device` must be a text such as "cpu" or "cuda:0", got {device!r:.100}.') from error


def _as_size(image_size: Any) -> tuple[int, int]:
    """Return height and width in pixels; raise TypeError or ValueError for anything else."""
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise ValueError(f"`image_size` must be (height, width) in pixels, got {image_size!r:.100}.")
    height, width = (whole_number("each of `image_size`", side) for side in image_size)
    return height, width


def _allowed(kind: str, given: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the given options, or raise an error for one that does not belong."""
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"{kind} takes {list(names) or 'no option'}, got {unknown}.")
    return given
