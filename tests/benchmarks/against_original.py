"""Time and peak memory of geometry targets and loss terms, against the original or against the plain reference.

    PYTHONPATH=.:tests python tests/benchmarks/against_original.py [--original FOLDER] [--repeats 5]

Without `--original`, pair masks and view consistency are compared with `tests/plain_geometry.py`. With it, targets and
terms are compared with the original's own functions too; `original_functions.FILES` names them. The contenders take
turns in one process on one thread. Time is the processor's, the least of the repeats; memory is what the tensors need
at their peak, beside the inputs. The result is JSON on stdout: figures, ratios, and how far the results differ.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from analytic_scenes import camera_to_world, intrinsics, render
from benchmarks.original_functions import read_original
from benchmarks.step_cost import measure_peak
from plain_geometry import plain_consistency, plain_mask
from torch import Tensor
from torch.nn import functional as F

from processing import TokenGrid
from trainer.data.geometry_inputs import resize_geometry
from trainer.geometry import FramePairs, project_points, transform_points, unproject_depth
from trainer.losses import ViewConsistencyLoss
from trainer.supervision.criterion import GeometryCriterion

NATIVE, GRID = (480, 640), TokenGrid(384, 14, 2)
FOCAL_SHARE = 0.903  # Of the width, as in ScanNet's depth frames.
CLEAN_TERMS = ("loss_depth", "loss_cross_view_depth", "loss_view_consistency")
PAPER_TERMS = ("loss_depth", "loss_cross_view_depth", "loss_overlap_l1")
# Official: MultitaskLoss(depth=...) in the training script.
ORIGINAL_OPTIONS = {"weight": 0.8, "gradient_loss_fn": "grad", "valid_range": 0.98}


class PlainConsistency(ViewConsistencyLoss):
    """View consistency by the plain reference."""

    def forward(self, predicted_depth: Tensor, intrinsics: Tensor, pairs: FramePairs, depth: Any = None) -> Tensor:
        """Return the loss of the reference."""
        return plain_consistency(predicted_depth, intrinsics, pairs, depth)


def project_pixels(depth: Tensor, cameras: tuple[Tensor, Tensor], target_from_source: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `plain_geometry.move_pixels` does, by unprojected points: the same formula in another order."""
    points = transform_points(target_from_source, unproject_depth(depth, cameras[0]))
    pixels, z = project_points(points, cameras[1])
    return pixels, torch.where(pixels[..., 0].isfinite(), z, torch.nan)


def make_scene(views: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Depth (V, H, W) of a wall and a ball with noise and holes, cameras (V, 3, 3) and poses (V, 4, 4) of a walk."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.linspace(-1, 1, views).tolist()
    poses = [camera_to_world(0.5 * s, 0.1 * s * s, (0.8 * s, 0.2 * s, -0.4 * s * s)) for s in steps]
    camera = intrinsics(FOCAL_SHARE * size[1], *size)
    depth = torch.stack([render(camera, pose, height=size[0], width=size[1]) for pose in poses])
    depth = (depth * (1 + 0.003 * torch.randn(depth.shape, generator=generator))).clamp(max=9.0)
    holes = torch.rand(views, 1, size[0] // 16, size[1] // 16, generator=generator) < 0.06
    holes = F.interpolate(holes.float(), size)[:, 0] > 0
    return torch.where(holes, 0.0, depth), camera.expand(views, 3, 3).contiguous(), torch.stack(poses)


def build_targets(protocol: str, depth: Tensor, cameras: Tensor, poses: Tensor) -> tuple[dict, FramePairs]:
    """Return geometry on the vision input and pairs with masks, from native depth."""
    geometry = resize_geometry(depth, cameras, poses, NATIVE, GRID, protocol)
    criterion = GeometryCriterion(protocol)
    usable, size = torch.ones(1, len(depth), dtype=torch.bool), None
    seen, seen_by = geometry["depth"], geometry["intrinsics"]
    if protocol == "paper":
        seen, seen_by, size = geometry["native_depth"], geometry["native_intrinsics"], GRID.covered_size
    return geometry, criterion.select_pairs(seen[None], seen_by[None], poses[None], usable, size=size)


def build_original_targets(original: Any, depth: Tensor, cameras: Tensor, poses: Tensor) -> tuple[dict, Tensor]:
    """Return depth, points and masks on 378 x 378 pixels, by the original's functions on the same scene."""
    matrices = torch.eye(4).repeat(len(depth), 1, 1)
    matrices[:, :3, :3] = cameras
    points = original.unproject(matrices, poses, depth * 1000)
    pairs = original.compute_cross_view_frame_pairs(poses, mode="neighbor", neighbor_range=2)
    sources = [pair["frame_i"] for pair in pairs]
    motion = torch.stack([pair["T_relative"] for pair in pairs])
    masks = original.compute_batched_reprojection_mask(depth[sources], motion, matrices[sources], *NATIVE)
    small = [
        F.interpolate(each[None], GRID.covered_size, mode="nearest")[0]
        for each in (depth, masks.float(), *points.permute(3, 0, 1, 2))
    ]
    return {"depth": small[0], "points": torch.stack(small[2:], -1)}, small[1] > 0.5


class Terms:
    """One scene with predictions, for terms and their gradients."""

    def __init__(self, views: int) -> None:
        depth, cameras, poses = (each[None] for each in make_scene(views, GRID.covered_size))
        self.cameras, self.depth = cameras, depth
        usable = torch.ones(1, views, dtype=torch.bool)
        self.pairs = {p: GeometryCriterion(p).select_pairs(depth, cameras, poses, usable) for p in ("clean", "paper")}
        generator = torch.Generator().manual_seed(1)
        filled = torch.where(depth > 0, depth, 2.0)
        self.prediction = filled * (1 + 0.05 * torch.randn(depth.shape, generator=generator))
        self.confidence = 1 + torch.rand(depth.shape, generator=generator)

    def leaves(self, protocol: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return depth, confidence and cross-view depth (N, H, W) as a model would predict them."""
        cross_view = 1.01 * self.pairs[protocol].gather_target(self.prediction)
        return tuple(each.clone().requires_grad_() for each in (self.prediction, self.confidence, cross_view))

    def step(self, protocol: str, terms: tuple[str, ...], is_plain: bool = False) -> tuple[float, Tensor]:
        """Compute terms forward and backward; return their sum and the gradient by depth."""
        criterion = GeometryCriterion(protocol)
        if is_plain:
            criterion.consistency_loss = PlainConsistency()
        criterion.terms = frozenset(terms)
        depth, confidence, cross_view = self.leaves(protocol)
        outputs = SimpleNamespace(depth=depth, depth_confidence=confidence, cross_view_depth=cross_view)
        targets = {"depth": self.depth, "pairs": self.pairs[protocol], "intrinsics": self.cameras}
        total = sum(criterion(outputs, targets).values())
        total.backward()
        return float(total.detach()), depth.grad

    def step_original(self, original: Any) -> tuple[float, Tensor]:
        """Compute all of the original's terms forward and backward."""
        depth, confidence, cross_view = self.leaves("paper")
        pairs = self.pairs["paper"]
        described = {
            "num_pairs": len(pairs), "batch_indices": pairs.batch, "frame_i_indices": pairs.source,
            "frame_j_indices": pairs.target, "valid_masks": pairs.covisible, "weights": pairs.weight,
        }  # fmt: skip
        batch = {
            "depth": self.depth,
            "frame_pairs": described,
            "cross_view_predictions": {"cross_view_depth": cross_view.unsqueeze(-1)},
        }
        loss = original.MultitaskLoss(depth=ORIGINAL_OPTIONS)
        total = loss({"depth": depth.unsqueeze(-1), "depth_conf": confidence}, batch)["objective"]
        total.backward()
        return float(total.detach()), depth.grad


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Least seconds and peak of each run, which take turns, and the result of each."""
    results = {name: run() for name, run in runs.items()}  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    figures = {
        name: {"seconds": round(min(seconds[name]), 4), "peak_mb": round(measure_peak(run), 1)}
        for name, run in runs.items()
    }
    return figures, results


def compare(figures: dict[str, dict[str, float]], name: str, other: str) -> dict[str, float]:
    """Return the ratios of time and peak of two runs."""
    return {key: round(figures[name][key] / figures[other][key], 3) for key in ("seconds", "peak_mb")}


def find_other(gradient: Tensor, expected: Tensor) -> Tensor:
    """Find the pixels whose gradients differ by more than a hundredth of the largest one."""
    return (gradient - expected).abs() > 0.01 * expected.abs().max()


def report_targets(views: int, repeats: int, original: Any) -> dict[str, Any]:
    """Return the figures of the targets of one scene, by protocol."""
    scene = make_scene(views, NATIVE)

    def plain(protocol: str) -> tuple[dict, FramePairs]:
        with patch("trainer.supervision.criterion.covisibility_mask", plain_mask):
            return build_targets(protocol, *scene)

    runs: dict[str, Callable[[], Any]] = {}
    for protocol in ("clean", "paper"):
        runs[protocol] = lambda protocol=protocol: build_targets(protocol, *scene)
        runs[f"{protocol}, reference"] = lambda protocol=protocol: plain(protocol)
    if original is not None:
        runs["original"] = lambda: build_original_targets(original, *scene)
    figures, results = measure(runs, repeats)
    report: dict[str, Any] = {"frames": views, "figures": figures}
    for protocol in ("clean", "paper"):
        mask, expected = (results[name][1].covisible for name in (protocol, f"{protocol}, reference"))
        report[f"{protocol} / reference"] = compare(figures, protocol, f"{protocol}, reference")
        report[f"{protocol}, share of other mask pixels"] = float((mask != expected).float().mean())
        if original is not None:
            report[f"{protocol} / original"] = compare(figures, protocol, "original")
    if original is not None:
        mask, expected = results["paper"][1].covisible, results["original"][1]
        if mask.shape == expected.shape:  # Pairs with an empty mask are dropped here, later there.
            share = float((mask != expected).float().mean())
            report["paper, share of other mask pixels than the original"] = share
    return report


def report_terms(views: int, repeats: int, original: Any) -> dict[str, Any]:
    """Return the figures of the terms of one scene, forward and backward."""
    terms = Terms(views)
    runs: dict[str, Callable[[], Any]] = {
        "clean": lambda: terms.step("clean", CLEAN_TERMS),
        "clean, reference": lambda: terms.step("clean", CLEAN_TERMS, is_plain=True),
        "consistency": lambda: terms.step("clean", CLEAN_TERMS[2:]),
        "consistency, reference": lambda: terms.step("clean", CLEAN_TERMS[2:], is_plain=True),
        "paper": lambda: terms.step("paper", PAPER_TERMS),
    }
    if original is not None:
        runs["original"] = lambda: terms.step_original(original)
    figures, results = measure(runs, repeats)
    report: dict[str, Any] = {"frames": views, "pairs": len(terms.pairs["clean"]), "figures": figures}
    for name in ("clean", "consistency"):
        (loss, gradient), (expected, expected_gradient) = results[name], results[f"{name}, reference"]
        report[f"{name} / reference"] = compare(figures, name, f"{name}, reference")
        report[f"{name}, relative difference"] = {
            "loss": abs(loss - expected) / abs(expected),
            "gradient": float((gradient - expected_gradient).norm() / expected_gradient.norm()),
        }
    with patch("plain_geometry.move_pixels", project_pixels):
        loss, gradient = runs["consistency, reference"]()
    expected, expected_gradient = results["consistency, reference"]
    report["consistency, reference by points"] = {
        "loss, relative difference": abs(loss - expected) / abs(expected),
        "share of other gradients": float(find_other(gradient, expected_gradient).float().mean()),
    }
    report["clean / paper"] = compare(figures, "clean", "paper")
    if original is not None:
        report["clean / original"] = compare(figures, "clean", "original")
        report["paper / original"] = compare(figures, "paper", "original")
    return report


def main() -> None:
    """Parse the command line and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, help="folder of a checkout of the original; default: not compared")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each contender; the fastest counts")
    parser.add_argument("--frames", type=int, default=32, help="frames of the scene whose targets are built")
    parser.add_argument("--loss-frames", type=int, default=8, help="frames of the scene whose terms are computed")
    words = parser.parse_args()
    torch.set_num_threads(1)
    original = None if words.original is None else read_original(words.original)
    report = {
        "torch": torch.__version__,
        "targets": report_targets(words.frames, words.repeats, original),
        "terms": report_terms(words.loss_frames, words.repeats, original),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
