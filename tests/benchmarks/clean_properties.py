"""Measure what `protocol="clean"` claims, beside `protocol="paper"`: `python tests/benchmarks/clean_properties.py`.

Every figure is measured on the spot: on procedural rooms, whose geometry is known exactly, and on ramps and planes.
`tests/benchmarks/test_clean_properties.py` asserts the clean column.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import torch  # noqa: E402
from benchmarks import pixel_shifts, room_views  # noqa: E402

from trainer.geometry import (  # noqa: E402
    compute_covisible_share,
    covisibility_mask,
    project_points,
    select_frame_pairs,
    unproject_depth,
)
from trainer.losses import CrossViewDepthLoss, DepthRegressionLoss, ViewConsistencyLoss  # noqa: E402
from trainer.supervision.criterion import GeometryCriterion  # noqa: E402

logger = logging.getLogger("clean_properties")

PROTOCOLS = ("clean", "paper")
Row = tuple[str, str, str]


def measure_alignment() -> list[Row]:
    """Distance between the place a token (or predicted pixel) stands for in the picture and in the other tensor."""
    rows = []
    for image_size, patch_size in ((384, 14), (378, 14)):
        shifts = {p: pixel_shifts.measure_shifts(image_size, patch_size, p) for p in PROTOCOLS}
        for path in shifts["clean"]:
            cells = [
                f"{mean:.1f} px mean, {largest:.1f} px largest" for mean, largest in (s[path] for s in shifts.values())
            ]
            rows.append((f"pixel to token, {path}, {image_size} px / {patch_size}", *cells))
    return rows


def measure_covisibility(scenes: list[room_views.RoomViews]) -> dict[str, tuple[float, float]]:
    """Precision and recall of the pairs' masks against ray-cast visibility, by protocol."""
    found = {protocol: torch.zeros(3, dtype=torch.float64) for protocol in PROTOCOLS}
    for scene in scenes:
        pairs = select_frame_pairs(scene.camera_to_world, neighbor_range=2)
        truth = scene.cast_visibility(pairs)
        for protocol, counts in found.items():
            mask = covisibility_mask(scene.depth, scene.intrinsics, pairs, protocol=protocol)
            counts += torch.tensor([(mask & truth).sum(), mask.sum(), truth.sum()])
    return {p: (float(both / said), float(both / true)) for p, (both, said, true) in found.items()}


def measure_consistency(scenes: list[room_views.RoomViews]) -> dict[str, dict[str, float]]:
    """The terms called "consistency" in metres: ours (clean) and the original's masked L1 (paper)."""
    results = {}
    for name in ("a plane, predicted 10% too near in a world 10% too small", "rooms, predicted exactly"):
        values = {protocol: [] for protocol in PROTOCOLS}
        is_plane = name.startswith("a plane")
        for scene in scenes[:1] if is_plane else scenes:
            depth, poses = scene.depth, scene.camera_to_world.clone()
            if is_plane:
                depth = room_views.plane_depth(scene.intrinsics, poses)
                poses[..., :3, 3] *= 0.9
            _compare(values, depth * (0.9 if is_plane else 1.0), depth, scene.intrinsics, poses, blind=is_plane)
        results[name] = {protocol: sum(found) / len(found) for protocol, found in values.items()}
    values = {protocol: [] for protocol in PROTOCOLS}
    for scene in scenes:
        prediction = scene.depth.clone()
        prediction[:, ::2] *= 1.1
        _compare(values, prediction, scene.depth, scene.intrinsics, scene.camera_to_world)
    results["rooms, every other frame predicted 10% too far"] = {p: sum(v) / len(v) for p, v in values.items()}
    return results


def _compare(values, prediction, depth, intrinsics, poses, blind: bool = False) -> None:
    pairs = select_frame_pairs(poses)
    pairs = pairs.with_covisible(covisibility_mask(depth, intrinsics, select_frame_pairs(poses)))
    ours = ViewConsistencyLoss()(prediction, intrinsics, pairs, None if blind else depth)
    masked = pairs.with_covisible(torch.ones_like(pairs.covisible)) if blind else pairs
    theirs = CrossViewDepthLoss("paper")(
        pairs.gather_target(prediction), pairs.gather_target(depth), masked.covisible, pairs.weight
    )
    values["clean"].append(ours.item())
    values["paper"].append(theirs.item())


def measure_points(scene: room_views.RoomViews) -> dict[str, int]:
    """Pixels without depth that count as points inside a box around the camera, of 1,000 holes."""
    depth = scene.depth[:1, :1].clone()
    depth[0, 0].view(-1)[:1000] = 0.0
    centre = scene.camera_to_world[:1, :1, None, None, :3, 3]
    counts = {}
    for protocol in PROTOCOLS:
        points = unproject_depth(depth, scene.intrinsics[:1, :1], scene.camera_to_world[:1, :1], protocol=protocol)
        inside = ((points - centre).abs() <= 0.2).all(-1)
        counts[protocol] = int((inside & (depth == 0)).sum())
    return counts


def measure_pairs(scenes: list[room_views.RoomViews]) -> list[Row]:
    """Identity pairs of a video, and what pairs share when the frames come in any order."""
    identical = []
    for protocol in PROTOCOLS:
        pairs = select_frame_pairs(scenes[0].camera_to_world, protocol=protocol)
        identical.append(str(int((pairs.source == pairs.target).sum())))
    shares = {mode: [] for mode in ("overlap", "neighbor")}
    for number, scene in enumerate(scenes):
        order = torch.randperm(scene.depth.shape[1], generator=torch.Generator().manual_seed(number))
        depth, cameras, poses = (x[:, order] for x in (scene.depth, scene.intrinsics, scene.camera_to_world))
        share = compute_covisible_share(depth, cameras, poses)
        for mode, found in shares.items():
            pairs = select_frame_pairs(poses, mode=mode, overlap=share)
            found += share[pairs.batch, pairs.source, pairs.target].tolist()
    means = [f"{sum(found) / len(found):.2f} ({mode})" for mode, found in shares.items()]
    return [
        ("identity pairs of a video", *identical),
        ("covisible share of the pairs of shuffled frames", *means),
    ]


def measure_numerics(scene: room_views.RoomViews) -> list[Row]:
    """NaN in a prediction; gradients of a batch without a target; mixed precision."""
    depth, cells = scene.depth, {"nan": [], "zero": [], "mixed": []}
    for protocol in PROTOCOLS:
        prediction = depth.clone() + 0.1
        prediction[0, 0, 0, 0] = torch.nan
        terms = DepthRegressionLoss(protocol=protocol).compute_terms(prediction, torch.ones_like(depth), depth)
        cells["nan"].append(f"{sum(bool(term.isnan()) for term in terms)} of 3")
        prediction = (depth + 0.1).requires_grad_()
        DepthRegressionLoss(protocol=protocol)(prediction, torch.ones_like(depth), depth * 0).backward()
        cells["zero"].append("in the graph" if prediction.grad is not None else "a constant")
        criterion = GeometryCriterion(protocol=protocol)
        arguments = (depth, scene.intrinsics, scene.camera_to_world, torch.ones(depth.shape[:2], dtype=torch.bool))
        plain = criterion.select_pairs(*arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = criterion.select_pairs(*arguments)
            points = unproject_depth(depth, scene.intrinsics, scene.camera_to_world, protocol=protocol)
            pixels, _ = project_points(points, scene.intrinsics, scene.camera_to_world)
        v, u = torch.meshgrid(*(torch.arange(side).float() for side in depth.shape[-2:]), indexing="ij")
        error = (pixels - torch.stack((u, v), -1)).abs().max().item()
        is_same = torch.equal(plain.covisible, mixed.covisible)
        cells["mixed"].append(f"{error:.4f} px, masks {'the same' if is_same else 'differ'}")
    return [
        ("terms of the depth loss that show a NaN in the prediction", *cells["nan"]),
        ("zero of a batch without a measured pixel", *cells["zero"]),
        ("there and back through a camera under bfloat16 autocast", *cells["mixed"]),
    ]


def measure_all(num_rooms: int) -> list[Row]:
    """All rows of the table: property, clean, paper."""
    scenes = room_views.make_scenes(num_rooms)
    rows = measure_alignment()
    found = measure_covisibility(scenes)
    rows.append(("precision of the pairs' masks against ray casting", *(f"{found[p][0]:.4f}" for p in PROTOCOLS)))
    rows.append(("recall of the pairs' masks against ray casting", *(f"{found[p][1]:.4f}" for p in PROTOCOLS)))
    zoomed = measure_covisibility(room_views.make_scenes(num_rooms, zoom=1.5))
    rows.append(
        ("precision, every other camera zoomed by 1.5", *(f"{zoomed[p][0]:.4f}" for p in PROTOCOLS)),
    )
    rows.append(("recall, every other camera zoomed by 1.5", *(f"{zoomed[p][1]:.4f}" for p in PROTOCOLS)))
    for name, values in measure_consistency(scenes).items():
        rows.append((f"consistency term, {name}", *(f"{values[p]:.4f} m" for p in PROTOCOLS)))
    rows.append(
        (
            "holes that become points in a box around the camera, of 1,000",
            *map(str, measure_points(scenes[0]).values()),
        )
    )
    return rows + measure_pairs(room_views.make_scenes(num_rooms, size=32, views=8)) + measure_numerics(scenes[0])


def main(arguments: list[str] | None = None) -> str:
    """Log the table and return it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-rooms", type=int, default=20)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = ["| Property | `clean` | `paper` |", "|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in measure_all(options.num_rooms)]
    table = "\n".join(lines)
    logger.info(table)
    return table


if __name__ == "__main__":
    main()
