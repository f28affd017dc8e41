"""Break a folder of posed frames in many ways, and print what the doctor says to each.

    python tests/benchmarks/broken_walks.py path/to/scene

The folder is in the posed_images layout (`PosedVideo.from_folder`) and is left as it is. A right verdict is "can be
used" of the first row, and "stopped" with the named cause of all others. The last line says which share of the pixels
of neighbouring frames is covisible by the two protocols.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from processing import PosedVideo
from processing.benchmarks.doctor import examine
from processing.geometry_rules import rescaled_intrinsics
from trainer.geometry import covisibility_mask, select_frame_pairs

__all__ = ["FORMS", "break_folder", "covisible_shares"]

Change = Callable[[Path], None]


def _poses(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return a break that changes the poses (V, 4, 4) of a folder."""

    def apply(folder: Path) -> None:
        files = sorted(file for file in folder.glob("*.txt") if file.stem.isdigit())
        for file, pose in zip(files, change(np.stack([np.loadtxt(file) for file in files])), strict=True):
            np.savetxt(file, pose)

    return apply


def _depth(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return a break that changes each depth map, in steps of the file."""

    def apply(folder: Path) -> None:
        for file in folder.glob("*.png"):
            with Image.open(file) as image:
                steps = np.asarray(image).astype(np.float64)
            Image.fromarray(np.clip(change(steps), 0, 65535).astype(np.uint16)).save(file)

    return apply


def _camera(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(folder: Path) -> None:
        for file in folder.glob("*intrinsic.txt"):
            camera = np.loadtxt(file)
            camera[:3, :3] = change(camera[:3, :3])
            np.savetxt(file, camera)

    return apply


def _transposed_rotations(poses: np.ndarray) -> np.ndarray:
    poses[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1).copy()
    return poses


def _scaled_translations(factor: float) -> Change:
    return _poses(lambda poses: poses * np.array([[1, 1, 1, factor]] * 3 + [[1, 1, 1, 1]]))


def _drop_pose(folder: Path) -> None:
    sorted(file for file in folder.glob("*.txt") if file.stem.isdigit())[2].unlink()


# Name: (break, words of the finding). The first eight are the faults that people report most.
FORMS: dict[str, tuple[Change, str]] = {
    "inverted poses": (_poses(np.linalg.inv), 'convention="world_to_camera"'),
    "OpenGL axes": (_poses(lambda poses: poses @ np.diag([1.0, -1, -1, 1])), 'convention="opengl"'),
    "depth in 1/5000 m": (_depth(lambda steps: steps * 5), "depth_unit=1/5000"),
    "depth that stands": (_depth(np.rot90), "Turn the maps"),
    "camera of half the size": (
        _camera(lambda camera: rescaled_intrinsics(camera, (2, 2), (1, 1))), "pictures of another size"
    ),
    "shuffled poses": (
        _poses(lambda poses: poses[np.random.default_rng(3).permutation(len(poses))]), "belong to other frames"
    ),
    "missing pose": (_drop_pose, "pose-missing"),
    "holes everywhere": (_depth(lambda steps: steps * 0), "depth-holes"),
    "inverted OpenGL": (
        _poses(lambda poses: np.linalg.inv(poses @ np.diag([1.0, -1, -1, 1]))), 'convention="opengl_world_to_camera"'
    ),
    "y flipped": (_poses(lambda poses: np.diag([1.0, -1, 1, 1]) @ poses @ np.diag([1.0, -1, 1, 1])), "left_handed"),
    "y flipped in the camera alone": (_poses(lambda poses: poses @ np.diag([1.0, -1, 1, 1])), "pose-not-rigid"),
    "transposed rotations": (_poses(_transposed_rotations), "rotations are transposed"),
    "inverted, depth in 1/4000 m": (
        lambda folder: (_poses(np.linalg.inv)(folder), _depth(lambda steps: steps * 4)(folder)), "depth_unit=1/4000"
    ),
    "depth in 1/4000 m": (_depth(lambda steps: steps * 4), "depth_unit=1/4000"),
    "depth in 1/256 m": (_depth(lambda steps: steps * 0.256), "depth_unit=1/256"),
    "depth in centimetres": (_depth(lambda steps: steps / 10), "depth_unit=0.01"),
    "translations in centimetres": (_scaled_translations(100), "translations are multiplied by 0.01"),
    "poses of a reconstruction": (_scaled_translations(0.37), "translations are multiplied by"),
    "reversed poses": (_poses(lambda poses: poses[::-1]), "reverse order"),
    "poses of the next frame": (
        _poses(lambda poses: poses[[*range(1, len(poses)), len(poses) - 1]]), "one frame later"
    ),
    "poses of every second frame": (
        _poses(lambda poses: poses[np.arange(len(poses)) * 2 % len(poses)]), "poses-wrong"
    ),
    "camera of twice the focal length": (
        _camera(lambda camera: camera * [[2, 1, 1], [1, 2, 1], [1, 1, 1]]), "multiplied by about 0.5"
    ),
    "camera of twice the size": (
        _camera(lambda camera: camera * [[2, 1, 2.1], [1, 2, 2.1], [1, 1, 1]]), "principal point"
    ),
    "normalised camera": (_camera(lambda camera: camera / [[640.0], [480.0], [1.0]]), "normalised"),
}  # fmt: skip


def break_folder(source: Path, target: Path, name: str) -> Path:
    """Copy a folder of posed frames and break the copy in one of `FORMS`; return it."""
    shutil.copytree(source, target)
    FORMS[name][0](target)
    return target


def covisible_shares(video: PosedVideo) -> dict[str, float]:
    """Return the mean share of a frame's pixels that its neighbour sees too, by protocol."""
    depth, poses = torch.from_numpy(video.depth)[None], torch.from_numpy(video.camera_to_world)[None]
    cameras = rescaled_intrinsics(video.intrinsics, video.frames.shape[1:3], video.depth.shape[1:])
    cameras = torch.from_numpy(cameras).float()[None]
    pairs = select_frame_pairs(poses, mode="neighbor")
    return {
        protocol: covisibility_mask(depth, cameras, pairs, protocol=protocol).float().mean().item()
        for protocol in ("clean", "paper")
    }


def _verdict(folder: Path) -> str:
    diagnosis = examine(folder)
    stops = [f"{finding.kind}: {finding.detail}" for finding in diagnosis.findings]
    return f"{'can be used' if diagnosis.can_run() else 'stopped':12} {stops[0] if stops else ''}"


def main() -> None:
    """Print the table of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(f"{'as it is':34} {_verdict(folder)}")  # noqa: T201
    for name, (_, words) in FORMS.items():
        with tempfile.TemporaryDirectory() as scratch:
            said = _verdict(break_folder(folder, Path(scratch) / folder.name, name))
        mark = "right" if said.startswith("stopped") and words in said else f"WRONG, expected {words!r}"
        print(f"{name:34} {mark:6} {said}")  # noqa: T201
    shares = covisible_shares(PosedVideo.from_folder(folder))
    print("covisible pixels of neighbours:", {name: f"{share:.1%}" for name, share in shares.items()})  # noqa: T201


if __name__ == "__main__":
    main()
