"""VGGT as a teacher, by an installation of the user's own. Nothing of it is part of this package."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from processing.token_pooling import WHOLE_FRAME, Window
from trainer.geometry.checks import Protocol
from trainer.teachers.patch_teacher import PatchTeacher, find_licence, resize_frames, short_name, weights_digest

__all__ = ["VGGTTeacher"]

LONGER_SIDE, PATCH_SIZE = 518, 14  # Pixels; VGGT was trained with these.
# facebook/VGGT-1B-Commercial has terms of its own; its model card states them.
LICENCES = {"facebook/VGGT-1B": "cc-by-nc-4.0"}


class VGGTTeacher(PatchTeacher):
    """Patch features of VGGT's last aggregator layer, the teacher of 3D-IDE.

    All frames of a video are read at once. Features are frame and global attention side by side (2048 channels of
    VGGT-1B) at the patches; camera and register tokens are left out.

    Whole frames are resized (bicubic) so that the longer side has 518 px and the other one the nearest multiple of 14.
    Frames of 480 x 640 become 392 x 518 px, so 28 x 37 patches, as the original stores them. VGGT's own loader would
    cut the upper and lower margin off frames that are higher than wide.

    The tests use a stand-in with the documented interface (`VGGT.from_pretrained`, `VGGT.aggregator`); neither the
    package nor released weights were run.

    Args:
        weights: Hub name, or a file of weights (`.safetensors`, or `.pt` that holds tensors only).
        licence: Licence of your weights; None: that of facebook/VGGT-1B, which is non-commercial, or as the model card
            of another name says. A file needs it.
        device: Device of the network.
        dtype: Type of the network: float32, or another one by autocast.
        protocol: Rule that pools patches, see `pool_teacher_features`.

    Raises:
        ImportError: If `vggt` is not installed.
        ValueError: If no licence is stated.
    """

    def __init__(
        self,
        weights: str | Path = "facebook/VGGT-1B",
        *,
        licence: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        protocol: Protocol = "clean",
    ):
        try:
            from vggt.models.vggt import VGGT
        except ImportError as error:
            raise ImportError(
                f"vggt is not installed ({error}). It is not part of this package, because of its licence; install it "
                "yourself: `pip install git+https://github.com/facebookresearch/vggt.git`."
            ) from error
        licence = find_licence(weights, licence, LICENCES)
        self.aggregator = _load(VGGT, weights).aggregator.to(device).eval().requires_grad_(False)
        self.device, self.dtype = torch.device(device), dtype
        super().__init__(
            name=short_name(weights),
            version=f"{weights_digest(self.aggregator)}, last aggregator layer",
            licence=licence,
            preprocessing=f"whole frames, longer side {LONGER_SIDE} px, sides multiples of {PATCH_SIZE} (bicubic), "
            f"{str(dtype).removeprefix('torch.')}",
            protocol=protocol,
        )

    def compute_patches(self, pixels: Tensor) -> tuple[Tensor, Window]:
        """Compute features of patches; see `PatchTeacher`."""
        size = _input_size(*pixels.shape[2:])
        inputs = resize_frames(pixels.to(self.device), size).float() / 255
        is_cast = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype if is_cast else None, enabled=is_cast):
            layers, first_patch = self.aggregator(inputs[None])
        rows, columns = (side // PATCH_SIZE for side in size)
        patches = layers[-1][0, :, first_patch:]
        if patches.shape[1] != rows * columns:
            raise ValueError(f"{self.name} gives {patches.shape[1]} patches for {rows} x {columns} of {size} px.")
        return patches.unflatten(1, (rows, columns)), WHOLE_FRAME


def _input_size(height: int, width: int) -> tuple[int, int]:
    scale = LONGER_SIDE / max(height, width)
    return tuple(max(1, round(side * scale / PATCH_SIZE)) * PATCH_SIZE for side in (height, width))


def _load(network_class: Any, weights: str | Path) -> nn.Module:
    path = Path(weights)
    if not path.is_file():
        return network_class.from_pretrained(str(weights))
    network = network_class()
    is_safetensors = path.suffix == ".safetensors"
    state = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    return network
