"""Pairs of frames of one scene: the features of one frame predict the depth of the other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from trainer.geometry.cameras import relative_pose
from trainer.geometry.checks import Protocol, check_camera_to_world, check_protocol, to_float

__all__ = ["FramePairs", "PairDirection", "PairMode", "select_frame_pairs", "usable_frames"]

PairMode = Literal["neighbor", "random", "overlap"]
PairDirection = Literal["forward", "backward", "bidirectional"]

MIN_OVERLAP = 0.1  # Official: pairs that share less are dropped.
BASELINE_RANGE = (0.1, 2.0)  # Metres, official.
BEST_BASELINE = 0.5  # Metres, official; the score falls by half of the distance to it.


@dataclass(frozen=True)
class FramePairs:
    """N frame pairs, flattened over the batch.

    The source frame gives features, the target frame gives depth. Official names: `frame_i_indices`,
    `frame_j_indices`, `batch_indices`, `T_relatives`, `weights`, `valid_masks`.

    Shape:
        source:             (N,) long, frame index that gives the features.
        target:             (N,) long, frame index that gives the depth.
        batch:              (N,) long, sample of the batch both frames belong to.
        target_from_source: (N, 4, 4) float, metres.
        weight:             (N,) float.
        covisible:          (N, H, W) bool or None, in the target view; see `covisibility_mask`.
    """

    source: Tensor
    target: Tensor
    batch: Tensor
    target_from_source: Tensor
    weight: Tensor
    covisible: Tensor | None = None

    def __post_init__(self) -> None:
        count = self.source.shape[0]
        for name in ("source", "target", "batch", "weight"):
            if getattr(self, name).shape != (count,):
                raise ValueError(f"`{name}` must have shape ({count},), got {tuple(getattr(self, name).shape)}.")
        if self.target_from_source.shape != (count, 4, 4):
            raise ValueError(
                f"`target_from_source` must have shape ({count}, 4, 4), got {tuple(self.target_from_source.shape)}."
            )
        if self.covisible is not None and (self.covisible.dim() != 3 or self.covisible.shape[0] != count):
            raise ValueError(f"`covisible` must have shape ({count}, H, W), got {tuple(self.covisible.shape)}.")

    def __len__(self) -> int:
        return self.source.shape[0]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "FramePairs":
        names = ("source", "target", "batch", "target_from_source", "weight", "covisible")
        return FramePairs(**{n: None if (x := getattr(self, n)) is None else change(x) for n in names})

    def to(self, device: torch.device | str) -> "FramePairs":
        """Return the same pairs on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, keep: Tensor | slice) -> "FramePairs":
        """Return the pairs that `keep` chooses.

        Shape:
            keep: (N,) bool, (M,) long, or a slice of pairs.
        """
        return self._map(lambda tensor: tensor[keep])

    def with_covisible(self, covisible: Tensor) -> "FramePairs":
        """Return the same pairs with the mask (N, H, W) of covisible target pixels."""
        return replace(self, covisible=covisible)

    def gather_source(self, per_frame: Tensor) -> Tensor:
        """Return the rows (N, ...) of a per-frame tensor (B, V, ...) of the source frames."""
        return per_frame[self.batch, self.source]

    def gather_target(self, per_frame: Tensor) -> Tensor:
        """Return the rows (N, ...) of a per-frame tensor (B, V, ...) of the target frames."""
        return per_frame[self.batch, self.target]


def select_frame_pairs(
    camera_to_world: Tensor,
    *,
    mode: PairMode = "neighbor",
    neighbor_range: int = 2,
    direction: PairDirection = "forward",
    identity_pairs: bool | None = None,
    valid: Tensor | None = None,
    overlap: Tensor | None = None,
    pairs_per_frame: int = 2,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    protocol: Protocol = "clean",
) -> FramePairs:
    """Choose the frame pairs of a batch.

    Source: 3D-IDE, frame pairs; official neighbour and overlap modes. Order: by sample, by source frame, forward
    offsets ascending and then backward offsets ("neighbor"), or best score first ("overlap").
    Differs in "clean": a frame without partner is left out instead of being paired with itself, and poses must be
    rigid.

    Args:
        camera_to_world: Poses of the frames.
        mode: Rule of the partners of a frame. "neighbor": the frames at most `neighbor_range` away in order. "random":
            `pairs_per_frame` other frames of the same scene. "overlap", for frames in any order: the `pairs_per_frame`
            frames of the highest overlap * (1 - |baseline - 0.5 m| / 2), among those that share at least 0.1 and lie
            0.1 to 2 m apart.
        neighbor_range: Largest distance in frame order, "neighbor" only.
        direction: Side of the neighbours in frame order, "neighbor" only.
        identity_pairs: Whether a frame without any partner is paired with itself; None: in "paper" yes, in "clean" no.
        valid: Frames that may be used, (B, V), or samples, (B,). None: all.
        overlap: Shared part of two frames, row = source, mode "overlap" only. `compute_covisible_share` ("clean") or
            `compute_voxel_overlap` ("paper") gives it.
        pairs_per_frame: Number of partners, modes "random" and "overlap".
        generator: Random numbers of mode "random".
        seed: Seed of mode "random" for each sample by itself: its pairs then depend neither on the other samples of
            the batch nor on padding. None: the batch is drawn at once.
        protocol: "clean" or "paper".

    Shape:
        camera_to_world: (B, V, 4, 4), metres.
        valid:           (B, V) or (B,), bool.
        overlap:         (B, V, V), 0 to 1.
        output:          FramePairs with N >= 0 pairs, weights 1.

    Raises:
        ValueError: If a shape or option is wrong, or poses of valid frames are not finite or (clean) not rigid.
    """
    check_protocol(protocol)
    if camera_to_world.dim() != 4 or camera_to_world.shape[-2:] != (4, 4):
        raise ValueError(f"`camera_to_world` must have shape (B, V, 4, 4), got {tuple(camera_to_world.shape)}.")
    usable = usable_frames(camera_to_world, valid)
    check_camera_to_world(camera_to_world[usable], is_rigid=protocol == "clean")
    if mode == "neighbor":
        targets, is_pair = _neighbor_candidates(usable, neighbor_range, direction)
    elif mode == "random":
        targets, is_pair = _random_candidates(usable, pairs_per_frame, generator, seed)
    elif mode == "overlap":
        targets, is_pair = _overlap_candidates(camera_to_world, usable, overlap, pairs_per_frame)
    else:
        raise ValueError(f'`mode` must be "neighbor", "random" or "overlap", got {mode!r}.')
    if protocol == "paper" if identity_pairs is None else identity_pairs:
        targets, is_pair = _add_identity_pairs(usable, targets, is_pair)
    return _build_pairs(to_float(camera_to_world), targets, is_pair)


def _add_identity_pairs(usable: Tensor, targets: Tensor, is_pair: Tensor) -> tuple[Tensor, Tensor]:
    """Add each frame as its own candidate, a pair where it has no other partner.

    Shape:
        output: (B, V, K + 1) each.
    """
    own = torch.arange(usable.shape[1], device=usable.device).expand(usable.shape).unsqueeze(-1)
    is_alone = usable & ~is_pair.any(-1)
    return torch.cat((targets, own), -1), torch.cat((is_pair, is_alone.unsqueeze(-1)), -1)


def _build_pairs(camera_to_world: Tensor, targets: Tensor, is_pair: Tensor) -> FramePairs:
    """Make pairs of candidates.

    Shape:
        camera_to_world:  (B, V, 4, 4), metres.
        targets, is_pair: (B, V, K), target frames and whether each is a pair.
    """
    batch, source, slot = is_pair.nonzero(as_tuple=True)
    target = targets[batch, source, slot]
    return FramePairs(
        source=source,
        target=target,
        batch=batch,
        target_from_source=relative_pose(camera_to_world[batch, source], camera_to_world[batch, target]),
        weight=camera_to_world.new_ones(len(source)),
    )


def usable_frames(camera_to_world: Tensor, valid: Tensor | None) -> Tensor:
    """Return the frames (B, V) that may be used.

    Args:
        camera_to_world: Poses (B, V, 4, 4), for their shape.
        valid: Mask of frames (B, V) or of samples (B,), bool; None: all.

    Raises:
        ValueError: If `valid` has another shape or is not bool.
    """
    shape = camera_to_world.shape[:2]
    if valid is None:
        return torch.ones(shape, dtype=torch.bool, device=camera_to_world.device)
    if valid.dtype != torch.bool or tuple(valid.shape) not in (tuple(shape), tuple(shape[:1])):
        raise ValueError(
            f"`valid` must be bool of shape {tuple(shape)} or {tuple(shape[:1])}, "
            f"got {valid.dtype} {tuple(valid.shape)}."
        )
    valid = valid.to(camera_to_world.device)
    return valid if valid.dim() == 2 else valid[:, None].expand(shape)


def _neighbor_candidates(usable: Tensor, neighbor_range: int, direction: str) -> tuple[Tensor, Tensor]:
    """Return target frames (B, V, K) and whether each is a pair; K = offsets in the official order."""
    if neighbor_range < 1:
        raise ValueError(f"`neighbor_range` must be at least 1, got {neighbor_range}.")
    forward = list(range(1, neighbor_range + 1))
    offsets = {"forward": forward, "backward": [-k for k in forward]}
    offsets["bidirectional"] = offsets["forward"] + offsets["backward"]
    if direction not in offsets:
        raise ValueError(f"`direction` must be one of {tuple(offsets)}, got {direction!r}.")
    batch_size, num_views = usable.shape
    steps = torch.tensor(offsets[direction], device=usable.device)
    targets = torch.arange(num_views, device=usable.device)[:, None] + steps
    is_inside = (targets >= 0) & (targets < num_views)
    targets = targets.clamp(0, num_views - 1).expand(batch_size, -1, -1)
    return targets, is_inside & usable.unsqueeze(-1) & _gather_frames(usable, targets)


def _random_candidates(
    usable: Tensor, pairs_per_frame: int, generator: torch.Generator | None, seed: int | None
) -> tuple[Tensor, Tensor]:
    batch_size, num_views = usable.shape
    if seed is None:
        device = usable.device if generator is None else generator.device
        order = torch.rand(batch_size, num_views, num_views, generator=generator, device=device).to(usable.device)
    else:
        order = torch.zeros(batch_size, num_views, num_views, device=usable.device)
        for sample, is_usable in enumerate(usable):
            places = is_usable.nonzero().flatten()
            drawn = torch.rand(len(places), len(places), generator=torch.Generator().manual_seed(seed))
            order[sample, places.unsqueeze(1), places] = drawn.to(order)
    is_partner = usable[:, :, None] & usable[:, None, :]
    is_partner = is_partner & ~torch.eye(num_views, dtype=torch.bool, device=usable.device)
    return _best_candidates(order.masked_fill(~is_partner, -torch.inf), pairs_per_frame)


def _overlap_candidates(
    camera_to_world: Tensor, usable: Tensor, overlap: Tensor | None, pairs_per_frame: int
) -> tuple[Tensor, Tensor]:
    batch_size, num_views = usable.shape
    expected = (batch_size, num_views, num_views)
    if overlap is None or tuple(overlap.shape) != expected:
        got = None if overlap is None else tuple(overlap.shape)
        raise ValueError(
            f'`mode` "overlap" needs `overlap` of shape {expected}, got {got}. Use `compute_covisible_share`.'
        )
    centres = to_float(camera_to_world)[..., :3, 3]
    baseline = (centres[:, :, None] - centres[:, None, :]).norm(dim=-1)
    overlap = to_float(overlap).to(baseline.device)
    is_partner = usable[:, :, None] & usable[:, None, :] & (overlap >= MIN_OVERLAP)
    is_partner = is_partner & (baseline >= BASELINE_RANGE[0]) & (baseline <= BASELINE_RANGE[1])
    is_partner = is_partner & ~torch.eye(num_views, dtype=torch.bool, device=usable.device)
    score = overlap * (1 - (baseline - BEST_BASELINE).abs() / 2)
    return _best_candidates(score.masked_fill(~is_partner, -torch.inf), pairs_per_frame)


def _best_candidates(score: Tensor, pairs_per_frame: int) -> tuple[Tensor, Tensor]:
    """Return the best partners of every row of (B, V, V) scores; -inf is no partner."""
    if pairs_per_frame < 1:
        raise ValueError(f"`pairs_per_frame` must be at least 1, got {pairs_per_frame}.")
    best = score.topk(min(pairs_per_frame, score.shape[-1]), dim=-1)
    return best.indices, best.values > -torch.inf


def _gather_frames(per_frame: Tensor, frames: Tensor) -> Tensor:
    """Return the values (B, V, K) of a per-frame tensor (B, V) at frame indices (B, V, K)."""
    return per_frame.unsqueeze(1).expand(-1, frames.shape[1], -1).gather(-1, frames)
