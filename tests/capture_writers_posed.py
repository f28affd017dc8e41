"""Writers of captures of reconstructions: nerfstudio, ScanNet++, COLMAP."""

import json
from pathlib import Path

import numpy as np
from capture_writers import picture, quaternions, steps, write
from scipy.ndimage import map_coordinates

from processing import PosedVideo

OPENGL = np.diag([1.0, -1, -1, 1])
# The world turned as nerfstudio turns COLMAP's.
TURN = np.array([[0.0, 1, 0, 0.5], [1, 0, 0, -0.25], [0, 0, -1, 0.75]])


def write_nerfstudio(
    folder: Path, room: PosedVideo, *, has_depth: bool = True, is_turned: bool = True, lens: dict | None = None
) -> Path:
    """Frames are listed backwards, as nothing orders them."""
    poses = room.camera_to_world.astype(np.float64) @ OPENGL
    applied = np.vstack([TURN, [0, 0, 0, 1]]) if is_turned else np.eye(4)
    camera, (height, width) = room.intrinsics[0].astype(float), room.frames.shape[1:3]
    content = {
        "fl_x": camera[0, 0],
        "fl_y": camera[1, 1],
        "cx": camera[0, 2] + 0.5,
        "cy": camera[1, 2] + 0.5,
        "w": width,
        "h": height,
    }
    content |= lens or {"camera_model": "PINHOLE"}
    if is_turned:
        content["applied_transform"] = TURN.tolist()
    frames = []
    for index, frame in enumerate(room.frames):
        write(folder / "images" / f"frame_{index:05d}.png", picture(frame))
        entry = {"file_path": f"./images/frame_{index:05d}.png", "transform_matrix": (applied @ poses[index]).tolist()}
        if has_depth:
            write(folder / "depths" / f"frame_{index:05d}.png", picture(steps(room.depth[index], 0.001)))
            entry["depth_file_path"] = f"depths/frame_{index:05d}.png"
        frames.append(entry)
    write(folder / "transforms.json", json.dumps({**content, "frames": frames[::-1]}))
    return folder


def write_scannetpp(folder: Path, room: PosedVideo) -> Path:
    """`dslr` of a scene, undistorted; one frame is bad."""
    write_nerfstudio(folder, room, has_depth=False, is_turned=False)
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame |= {"file_path": Path(frame["file_path"]).name, "is_bad": frame["file_path"].endswith("00002.png")}
    write(folder / "nerfstudio" / "transforms_undistorted.json", json.dumps(content))
    (folder / "transforms.json").unlink()
    (folder / "images").rename(folder / "resized_undistorted_images")
    return folder


def write_colmap_text(folder: Path, room: PosedVideo, *, model: str = "PINHOLE", bends: tuple = ()) -> Path:
    camera, (height, width) = room.intrinsics[0].astype(float), room.frames.shape[1:3]
    numbers = [camera[0, 0], camera[1, 1], camera[0, 2] + 0.5, camera[1, 2] + 0.5, *bends]
    words = " ".join(f"{value:.12g}" for value in numbers)
    write(folder / "sparse/0/cameras.txt", f"# Camera list\n7 {model} {width} {height} {words}\n")
    world_to_camera = np.linalg.inv(room.camera_to_world.astype(np.float64))
    lines = ["# Image list"]
    for index, (pose, turn) in enumerate(zip(world_to_camera, quaternions(world_to_camera), strict=True)):
        write(folder / "images" / f"{index:05d}.png", picture(room.frames[index]))
        values = " ".join(f"{value:.12g}" for value in (*turn[[3, 0, 1, 2]], *pose[:3, 3]))
        lines += [f"{40 - index} {values} 7 {index:05d}.png", "1.5 2.5 -1 3.5 4.5 -1" if index else ""]
    write(folder / "sparse/0/images.txt", "\n".join(lines) + "\n")
    write(folder / "sparse/0/points3D.txt", "")
    return folder


def write_colmap(folder: Path, room: PosedVideo) -> Path:
    """Binary files, by pycolmap."""
    import pycolmap

    write_colmap_text(folder, room)
    pycolmap.Reconstruction(folder / "sparse/0").write_binary(folder / "sparse/0")
    for file in (folder / "sparse/0").glob("*.txt"):
        file.unlink()
    return folder


def bend(frames: np.ndarray, camera: np.ndarray, size: tuple[int, int], margin: int, colmap_camera) -> np.ndarray:
    """What a distorted lens sees of pinhole frames that are wider by a margin; pycolmap knows the way back."""
    v, u = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    pixels = np.stack([u.ravel(), v.ravel()], 1) + 0.5
    rays = colmap_camera.cam_from_img(pixels)
    rays = rays[:, :2] / rays[:, 2:] if rays.shape[1] == 3 else rays
    at = rays * camera[[0, 1], [0, 1]] + camera[:2, 2] + margin
    return np.stack(
        [
            np.stack([map_coordinates(frame[..., c].astype(float), at.T[::-1], order=1) for c in range(3)], -1)
            .reshape(*size, 3)
            .round()
            .astype(np.uint8)
            for frame in frames
        ]
    )


def colour_error(seen: np.ndarray, truth: np.ndarray) -> float:
    """Mean difference of colours, without a border that the lens may not show."""
    return float(np.abs(seen.astype(int) - truth)[:, 8:-8, 8:-8].mean())
