"""Raw data of the app Polycam: folder `keyframes` with pictures, cameras and depth.

Source: github.com/PolyCam/polyform, README ("Data format"); nerfstudio's `polycam_utils.py`:

    keyframes/images/T.jpg and cameras/T.json, or corrected_images and corrected_cameras, which are preferred: poses
        after the app's optimisation.
    cameras: t_00 to t_23: three rows of camera to world, OpenGL axes (ARKit's), metres; fx, fy, cx, cy, width, height.
    keyframes/depth/T.png: 16 bits, millimetres along z, 0 = no measurement; confidence is not read.

Apple counts the principal point from the corner of the picture, so that ours is half a pixel less.
"""

from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.pictures import depth_reader, list_files, match_names, picture_reader
from processing.captures.tables import finite_number
from processing.limits import load_json
from processing.pose_rules import convert_poses

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "polycam"
LOOKED_FOR = "folders keyframes/images and keyframes/cameras, or keyframes/corrected_images and corrected_cameras"

_FOLDERS = (("corrected_images", "corrected_cameras"), ("images", "cameras"))
_CAMERA = ("fx", "fy", "cx", "cy", "width", "height")


def _find(path: Path) -> tuple[Path, str, str] | None:
    """Return the folder of keyframes, and the names of those of pictures and cameras."""
    for place in (path / "keyframes", path):
        if place.name == "keyframes":
            for pictures, cameras in _FOLDERS:
                if (place / pictures).is_dir() and (place / cameras).is_dir():
                    return place, pictures, cameras
    return None


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    found = _find(path)
    return None if found is None else f"keyframes/{found[1]}, keyframes/{found[2]}"


def read(path: Path) -> Capture:
    """Read names, cameras and poses of the keyframes."""
    folder, pictures, cameras = _find(path)
    files = list_files(folder / pictures, ".jpg", ".png")
    if not files:
        raise FileNotFoundError(f"{folder / pictures} holds no pictures. Export the raw data again.")
    records = match_names(files, folder / cameras, ".json", "camera")
    if records is None:
        raise FileNotFoundError(f"{folder / cameras} has no camera of any picture. Export the raw data again.")
    depth = match_names(files, folder / "depth", ".png", "depth")
    read_in = [_read_camera(file) for file in records]
    sizes = {size for _, _, size in read_in}
    if len(sizes) > 1:
        raise ValueError(f"{folder / cameras}: pictures must have one size, got {sorted(sizes)} (height, width).")
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(file.stem for file in files),
        read_frames=picture_reader(files),
        read_depth=None if depth is None else depth_reader(depth, 0.001),
        intrinsics=np.stack([camera for camera, _, _ in read_in]),
        camera_size=sizes.pop(),
        camera_to_world=convert_poses(np.stack([pose for _, pose, _ in read_in]), "opengl"),
    )


def _read_camera(file: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return camera (3, 3), pose (4, 4) in OpenGL axes, height and width."""
    values = load_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} must be an object of JSON, got {type(values).__name__}.")
    fx, fy, cx, cy, width, height = (finite_number(values, key, file) for key in _CAMERA)
    pose = np.eye(4)
    for row in range(3):
        pose[row] = [finite_number(values, f"t_{row}{column}", file) for column in range(4)]
    camera = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    if min(width, height) < 1:
        raise ValueError(f"{file}: `width` and `height` must be pixels, got {width} and {height}.")
    return camera, pose, (round(height), round(width))
