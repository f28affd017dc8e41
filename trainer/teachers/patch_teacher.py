"""Base of the teachers with a network: whole frames in, patches pooled to tokens."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize
from tqdm import tqdm

from processing.image_reading_ide3d import frames_to_tensor
from processing.token_grid import TokenGrid
from processing.token_pooling import Window, pool_teacher_features
from trainer.geometry.checks import Protocol, check_protocol
from trainer.teachers.protocol import FrameSource

__all__ = ["PatchTeacher", "find_licence", "resize_frames", "short_name", "weights_digest"]


class PatchTeacher:
    """A network that gives features of patches, by `compute_patches` of a subclass.

    Every frame is shown as a whole, as the model sees it; patches are averaged over the part of the frame that a token
    covers.

    Args:
        name: Name of the teacher, see `Teacher`.
        version: Version of weights and code.
        licence: Licence of the weights.
        preprocessing: Way from frames to the network's input.
        protocol: Rule that pools patches, see `pool_teacher_features`.
    """

    def __init__(self, *, name: str, version: str, licence: str, preprocessing: str, protocol: Protocol):
        check_protocol(protocol)
        self.name, self.version, self.licence = name, version, licence
        self.preprocessing, self.protocol = preprocessing, protocol

    def compute_patches(self, pixels: Tensor) -> tuple[Tensor, Window]:
        """Compute features of the patches of one video, and the shown part of the frame.

        Shape:
            pixels: (V, 3, h, w), uint8.
            output: (V, R, S, C), any float.
        """
        raise NotImplementedError

    @functools.cached_property
    def feature_size(self) -> int:
        """Number of channels C, read from the features of one grey frame."""
        with torch.no_grad():
            return self.compute_patches(torch.full((1, 3, 32, 32), 128, dtype=torch.uint8))[0].shape[-1]

    def compute_features(
        self,
        frames: Any,
        geometry: dict[str, Tensor] | None,
        grid: TokenGrid,
        source: FrameSource | None = None,
    ) -> Tensor:
        """Compute the features of one video; geometry and source are not used.

        See `Teacher`.

        Raises:
            ValueError: If frames are not uint8 RGB, or features are not finite.
        """
        pixels = frames_to_tensor(frames, "the frames")
        if pixels.dtype != torch.uint8 or pixels.shape[1] != 3:
            raise ValueError(f"A teacher needs uint8 RGB frames, got {pixels.dtype} with {pixels.shape[1]} channels.")
        with torch.no_grad():
            patches, window = self.compute_patches(pixels)
            features = pool_teacher_features(patches, grid, window=window, protocol=self.protocol).cpu()
        if not torch.isfinite(features).all():
            raise ValueError(f"{self.name} gives features that are not finite; try `dtype` float32.")
        return features


def resize_frames(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Squash whole frames (V, 3, h, w), uint8, to `size`, as the video processor does it.

    Args:
        pixels: Frames.
        size: Height and width in pixels.
    """
    return resize(pixels, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)


def weights_digest(module: nn.Module) -> str:
    """Return a digest of the names, types, shapes and values of all weights.

    It is the same wherever the weights were read from.
    """
    digest = hashlib.sha256()
    state = module.state_dict()
    for name in tqdm(sorted(state), desc="Digest of weights", unit="tensor", delay=2, disable=None):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()[:16]}"


def short_name(path: str | Path) -> str:
    """Return the name of a local folder or file, or the Hub name."""
    return Path(path).name if Path(path).exists() else str(path)


def find_licence(path: str | Path, licence: str | None, known: Mapping[str, str]) -> str:
    """Return the licence of weights: given, known by name, or from the model card.

    Args:
        path: Folder, file or Hub name of the weights.
        licence: Licence that the caller states; None: not stated.
        known: Licences by Hub name.

    Raises:
        ValueError: If the licence is stated nowhere.
    """
    if licence or str(path) in known:
        return licence or known[str(path)]
    card_file = Path(path) / "README.md"
    try:
        card = ModelCard.load(card_file if Path(path).exists() else str(path), ignore_metadata_errors=True)
        stated = card.data.get("license_name") or card.data.license
    except (OSError, ValueError):  # no card, no network, or metadata that cannot be read
        stated = None
    if not stated:
        raise ValueError(
            f'No model card states the licence of {path}. Say it yourself by `licence="apache-2.0"` or `--licence`. '
            "The features that you train with come under it."
        )
    return str(stated)
