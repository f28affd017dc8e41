"""Input and output of proposers: a video as a model sees it, and regions on its token grid."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from processing.region_files import NamedRegions
from processing.token_grid import TokenGrid

__all__ = ["ProposalVideo", "RegionProposals", "RegionProposer"]


@dataclass(frozen=True)
class ProposalVideo:
    """A video as a model sees it.

    Args:
        frames: Pictures, uint8 (V, H, W, 3).
        tokens: Visual tokens of the model, float32 (V, rows, cols, C), without the newline column.
        grid: Token grid of the model.

    Raises:
        TypeError: If frames are no uint8 array, or tokens no array of floats.
        ValueError: If shapes do not fit each other, there is no frame, or a token is not finite.
    """

    frames: np.ndarray
    tokens: np.ndarray
    grid: TokenGrid

    def __post_init__(self) -> None:
        if not isinstance(self.frames, np.ndarray) or self.frames.dtype != np.uint8:
            kind = getattr(self.frames, "dtype", type(self.frames).__name__)
            raise TypeError(f"`frames` must be a uint8 array (V, H, W, 3), got {kind}.")
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or not self.frames.size:
            raise ValueError(f"`frames` must have the shape (V, H, W, 3), got {self.frames.shape}.")
        check_tokens(self.tokens)
        if self.tokens.shape[:3] != (len(self.frames), *self.grid.shape):
            raise ValueError(
                f"`tokens` must have the shape ({len(self.frames)}, {self.grid.rows}, {self.grid.cols}, C) for these "
                f"frames and this grid, got {self.tokens.shape}. Leave the newline column out."
            )

    @property
    def fingerprint(self) -> str:
        """Digest of the frames, by which proposals know their video."""
        return hashlib.sha256(repr(self.frames.shape).encode() + self.frames.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class RegionProposals(NamedRegions):
    """Regions that something proposed for one video, with ids that are stable over its frames.

    Args:
        names: N names, in the order of the masks.
        masks: Region masks, bool (N, V, rows, cols). Regions may overlap.
        scores: How surely each region is one object, float (N,), best first where the source ranks them.
        source: Name of the proposer, such as "own tokens" or the names of the models.
        licence: Licence of the weights that proposed them.
        fingerprint: `ProposalVideo.fingerprint` of the video.
    """

    scores: tuple[float, ...] = field(default=())
    source: str = ""
    licence: str = ""
    fingerprint: str = ""

    def check_video(self, fingerprint: str) -> None:
        """Raise ValueError unless these proposals are of the video with this fingerprint."""
        if self.fingerprint != fingerprint:
            raise ValueError(
                f"These {len(self)} proposals by {self.source!r} are of another video, or of other frames of it. "
                "Propose regions for the frames that the session shows: `session.propose()`."
            )


class RegionProposer(Protocol):
    """Maker of region proposals for a video.

    Attributes:
        source: Name in results.
        licence: Licence of the weights, in results.
    """

    source: str
    licence: str

    def propose(self, video: ProposalVideo, words: Sequence[str] = ()) -> RegionProposals:
        """Propose regions of a video.

        Args:
            video: Frames, tokens and grid.
            words: Descriptions of what to look for; those that propose without words do not read them.
        """


def check_tokens(tokens: np.ndarray) -> None:
    """Raise unless these are finite visual tokens of at least one frame.

    Args:
        tokens: Floats (V, rows, cols, C).

    Raises:
        TypeError: If they are no array of floats.
        ValueError: If they have another shape, none is there, or one is not finite.
    """
    if not isinstance(tokens, np.ndarray) or tokens.dtype.kind != "f":
        kind = getattr(tokens, "dtype", type(tokens).__name__)
        raise TypeError(f"`tokens` must be an array of floats (V, rows, cols, C), got {kind}.")
    if tokens.ndim != 4 or not tokens.size:
        raise ValueError(f"`tokens` must have the shape (V, rows, cols, C), got {tokens.shape}.")
    if not np.isfinite(tokens).all():
        raise ValueError("`tokens` hold NaN or Inf: the model's weights or the frames are damaged.")
