"""Cases of captures: paths, arguments, and files of every format that are damaged."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATH_WORDS, PATHS, make_fifo, write_damaged

# The files of each format that hold numbers, by the writer of `capture_writers`.
DAMAGED = {
    "scannet": ("color/1.jpg", "depth/1.png", "pose/1.txt", "intrinsic/intrinsic_color.txt"),
    "sens": ("scene.sens",),
    "tum": ("rgb.txt", "depth.txt", "groundtruth.txt"),
    "nerfstudio": ("transforms.json", "images/frame_00001.png", "depths/frame_00001.png"),
    "colmap": ("sparse/0/cameras.bin", "sparse/0/images.bin", "images/00001.png"),
    "colmap_text": ("sparse/0/cameras.txt", "sparse/0/images.txt", "lowres_wide.traj"),
    "record3d": ("room.r3d",),
    "stray_scanner": ("rgb.mp4", "odometry.csv", "camera_matrix.csv", "depth/000001.png"),
    "polycam": (
        "keyframes/corrected_images/103.jpg",
        "keyframes/corrected_cameras/103.json",
        "keyframes/depth/103.png",
    ),
    "arkitscenes": ("lowres_wide.traj", "lowres_wide_intrinsics/arkitscenes_6845.201.pincam"),
    "replica": ("traj.txt", "results/frame000001.jpg", "results/depth000001.png", "cam_params.json"),
    "hypersim": (
        "_detail/metadata_scene.csv",
        "_detail/cam_00/camera_keyframe_positions.hdf5",
        "images/scene_cam_00_geometry_hdf5/frame.0003.depth_meters.hdf5",
    ),
    "seven_scenes": ("frame-000001.color.png", "frame-000001.depth.proj.png", "frame-000001.pose.txt"),
}
OWN_CAMERA = ("tum",)  # formats whose folder holds no camera
TABLES = ("rgb.txt", "depth.txt", "groundtruth.txt", "sparse/0/images.txt")  # half of a table may be a table


@cache
def _written(name: str) -> Path:
    import capture_rooms
    import capture_writers
    import capture_writers_phones
    import capture_writers_posed
    import capture_writers_rendered

    path = goods.root() / f"capture-{name}"
    if not path.exists():
        size = {
            "seven_scenes": ((480, 640), np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])),
            "hypersim": ((72, 100), np.array([[86.60254, 0, 49.5], [0, 86.60254, 35.5], [0, 0, 1]])),
        }.get(name)
        room = capture_rooms.look(*(size[::-1] if size else ()), num_frames=2 if size else 4, step=0.001)
        modules = (capture_writers, capture_writers_posed, capture_writers_phones, capture_writers_rendered)
        module = next(module for module in modules if hasattr(module, f"write_{name}"))
        options = {"replica": {"is_above": False}, "hypersim": {"has_lens": False}}.get(name, {})
        getattr(module, f"write_{name}")(path, room, **options)
    return path


def _copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(_written(name), folder / name))


def _open(path: Any, name: str = "scannet", **options: Any) -> Any:
    from processing.captures import open_capture

    if name == "record3d":
        path = Path(path) / "room.r3d"

    if name in OWN_CAMERA:
        from capture_rooms import CAMERA

        options.setdefault("intrinsics", CAMERA)
    return open_capture(path, **options)


def _damage(folder: Path, name: str, file: str, change: Any) -> Any:
    path = _copy(folder, name)
    write_damaged(path / file, change)
    return _open(path, name)


@door("captures", "processing.captures.open_capture", "processing.captures.find_capture",
      "processing.captures.list_captures")  # fmt: skip
def captures(add: Callable[..., None]) -> None:
    for what, make in PATHS.items():
        add(f"path {what}", lambda f, m=make: _open(m(f)), *PATH_WORDS, "path", "capture", "exist")
    for argument, values in {
        "format": {"None": None, "unknown": "kinect", "a list": ["tum"], "another one": "tum"},
        "frames": {**NUMBERS, "a text": "all", "too many names": ["0"], "twice outside": [0, 99], "a set": {0, 1}},
        "parts": {"a text": "depth", "unknown": ["colour"], "a number": 3},
        "skip_invalid_poses": {"a text": "no", "None": None, "1": 1},
        "intrinsics": {"of one number": 500.0, "4 x 4": np.eye(4), "zeros": np.zeros((3, 3)), "a text": "iphone",
                       "of other frames": np.tile(np.eye(3), (3, 1, 1)), "normalised": np.diag([0.8, 0.9, 1])},
        "scale": {"0": 0, "-1": -1, "NaN": np.nan, "Inf": np.inf, "a text": "1", "a bool": True, "a list": [1]},
    }.items():  # fmt: skip
        for what, value in values.items():
            if (argument, what) in (("frames", "None"), ("frames", "huge"), ("frames", "a list")):
                continue
            words = (argument, "finite") if (argument, what) == ("scale", "NaN") else (argument,)
            add(f"{argument} {what}", lambda f, a=argument, v=value: _open(_copy(f, "scannet"), **{a: v}), *words)
    for name, files in DAMAGED.items():
        add(f"right: {name}", lambda f, n=name: _open(_copy(f, n), n), expect="taken")
        add(f"{name}: poses alone", lambda f, n=name: _open(_copy(f, n), n, parts=["camera_to_world"]), expect="taken")
        for file in files:
            for what, change in FILES.items():
                expect = "either" if what == "half" and file in TABLES else "refused"
                add(f"{name}: {file} {what}", lambda f, n=name, p=file, c=change: _damage(f, n, p, c), name, Path(file).name, "format",
                    Path(file).stem, expect=expect)  # fmt: skip
            add(f"{name}: {file} a pipe", lambda f, n=name, p=file: _piped(f, n, p), name, Path(file).name, "format")


def _piped(folder: Path, name: str, file: str) -> Any:
    path = _copy(folder, name)
    (path / file).unlink()
    make_fifo(path / file)
    return _open(path, name)
