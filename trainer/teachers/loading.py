"""Teachers by the words of a command line or a recipe."""

from pathlib import Path
from typing import Any

import torch

from trainer.geometry.checks import Protocol
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
        ValueError: If this teacher does not have an option, or refuses its value.
    """
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


def _allowed(kind: str, given: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the given options, or raise an error for one that does not belong."""
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"{kind} takes {list(names) or 'no option'}, got {unknown}.")
    return given
