"""Writers of captures that were rendered: Replica by NICE-SLAM, Hypersim."""

import json
from pathlib import Path

import numpy as np
from capture_writers import picture, steps, write
from capture_writers_posed import OPENGL

from processing import PosedVideo

INCH = 0.0254


def write_replica(folder: Path, room: PosedVideo, *, is_above: bool = True) -> Path:
    camera, (height, width) = room.intrinsics[0].astype(float), room.frames.shape[1:3]
    values = {"w": width, "h": height, "fx": camera[0, 0], "fy": camera[1, 1], "cx": camera[0, 2], "cy": camera[1, 2]}
    place = folder.parent if is_above else folder
    write(place / "cam_params.json", json.dumps({"camera": {**values, "scale": 6553.5}}))
    for index, frame in enumerate(room.frames):
        write(folder / "results" / f"frame{index:06d}.jpg", picture(frame, "JPEG"))
        write(folder / "results" / f"depth{index:06d}.png", picture(steps(room.depth[index], 1 / 6553.5)))
    rows = [" ".join(f"{value:.18e}" for value in pose.ravel()) for pose in room.camera_to_world.astype(float)]
    write(folder / "traj.txt", "\n".join(rows) + "\n")
    return folder


def write_array(file: Path, values: np.ndarray) -> Path:
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        content.create_dataset("dataset", data=values, compression="gzip" if np.ndim(values) > 1 else None)
    return file


def write_hypersim(folder: Path, room: PosedVideo, *, has_lens: bool = True, camera_name: str = "cam_00") -> Path:
    """Frames are numbered 0, 3, 6; the trajectory has poses between them too."""
    camera, (height, width) = room.intrinsics[0].astype(float), room.frames.shape[1:3]
    poses = np.repeat(room.camera_to_world.astype(np.float64) @ OPENGL, 3, 0)
    poses[1::3, 0, 3] += 5
    detail = folder / "_detail" / camera_name
    write_array(detail / "camera_keyframe_frame_indices.hdf5", np.arange(len(poses)))
    write_array(detail / "camera_keyframe_orientations.hdf5", poses[:, :3, :3])
    write_array(detail / "camera_keyframe_positions.hdf5", poses[:, :3, 3] / INCH)
    table = f"parameter_name,parameter_value\nmeters_per_asset_unit,{INCH}\n"
    write(folder / "_detail" / "metadata_scene.csv", table)
    x = (np.arange(width) - camera[0, 2]) / camera[0, 0]
    y = (np.arange(height) - camera[1, 2]) / camera[1, 1]
    length = np.sqrt(x[None] ** 2 + y[:, None] ** 2 + 1)
    for index, frame in enumerate(room.frames):
        name = f"frame.{3 * index:04d}"
        write(folder / "images" / f"scene_{camera_name}_final_preview" / f"{name}.tonemap.jpg", picture(frame, "JPEG"))
        distance = np.where(room.depth[index] > 0, room.depth[index] * length, np.nan).astype(np.float32)
        write_array(folder / "images" / f"scene_{camera_name}_geometry_hdf5" / f"{name}.depth_meters.hdf5", distance)
    if has_lens:
        # Edges of the picture in the plane z = -1 of OpenGL axes: u = -1 is the left one, v = 1 the upper one.
        left, right = ((edge - camera[0, 2]) / camera[0, 0] for edge in (-0.5, width - 0.5))
        top, bottom = (-(edge - camera[1, 2]) / camera[1, 1] for edge in (-0.5, height - 0.5))
        lens = [[(right - left) / 2, 0, (left + right) / 2], [0, (top - bottom) / 2, (top + bottom) / 2], [0, 0, -1]]
        names = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
        values = ",".join(f"{value:.12g}" for row in lens for value in row)
        write(
            folder.parent / "metadata_camera_parameters.csv", f"scene_name,{','.join(names)}\n{folder.name},{values}\n"
        )
    return folder
