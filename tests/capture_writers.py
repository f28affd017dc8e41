"""Writers of captures: a room in the files of each format, by the format's own description."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from processing import PosedVideo


def picture(frame: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return buffer.getvalue()


def steps(depth: np.ndarray, unit: float) -> np.ndarray:
    return np.rint(depth.astype(np.float64) / unit).astype(np.uint16)


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def matrix_text(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.10f}" for value in row) for row in matrix) + "\n"


def homogeneous(camera: np.ndarray) -> np.ndarray:
    full = np.eye(4)
    full[:3, :3] = camera
    return full


def quaternions(poses: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(poses[:, :3, :3].astype(np.float64)).as_quat()


def write_posed_images(folder: Path, room: PosedVideo) -> Path:
    for index, frame in enumerate(room.frames):
        write(folder / f"{index:05d}.jpg", picture(frame, "JPEG"))
        write(folder / f"{index:05d}.png", picture(steps(room.depth[index], 0.001)))
        write(folder / f"{index:05d}.txt", matrix_text(room.camera_to_world[index]))
    write(folder / "intrinsic.txt", matrix_text(room.intrinsics[0]))
    return folder


def write_scannet(folder: Path, room: PosedVideo) -> Path:
    for index, frame in enumerate(room.frames):
        write(folder / "color" / f"{index}.jpg", picture(frame, "JPEG"))
        write(folder / "depth" / f"{index}.png", picture(steps(room.depth[index], 0.001)))
        write(folder / "pose" / f"{index}.txt", matrix_text(room.camera_to_world[index]))
    write(folder / "intrinsic" / "intrinsic_color.txt", matrix_text(homogeneous(room.intrinsics[0])))
    return folder


def write_sens(folder: Path, room: PosedVideo, *, colour: str = "PNG", is_packed: bool = True) -> Path:
    height, width = room.frames.shape[1:3]
    camera, identity = homogeneous(room.intrinsics[0]), np.eye(4)
    content = struct.pack("<IQ", 4, 6) + b"Kinect"
    content += np.stack([camera, identity, camera, identity]).astype("<f4").tobytes()
    content += struct.pack("<2i", {"RAW": 0, "PNG": 1, "JPEG": 2}[colour], int(is_packed))
    content += struct.pack("<4IfQ", width, height, width, height, 1000.0, len(room))
    for index, frame in enumerate(room.frames):
        depth = steps(room.depth[index], 0.001).astype("<u2").tobytes()
        depth = zlib.compress(depth) if is_packed else depth
        pixels = frame.tobytes() if colour == "RAW" else picture(frame, colour)
        content += room.camera_to_world[index].astype("<f4").tobytes()
        content += struct.pack("<4Q", index, index, len(pixels), len(depth)) + pixels + depth
    return write(folder / "scene.sens", content + struct.pack("<Q", 0))


def write_tum(folder: Path, room: PosedVideo, *, depth_delay: float = 0.007, pose_rate: int = 1) -> Path:
    """Pictures at 30 Hz from 1300000000 s on, as the benchmark has them; poses at the times of the pictures."""
    start, lists = 1300000000.0, {"rgb": ["# colour images"], "depth": ["# depth maps"]}
    poses = ["# timestamp tx ty tz qx qy qz qw"]
    for index, (frame, turn) in enumerate(zip(room.frames, quaternions(room.camera_to_world), strict=True)):
        time = start + index / 30
        write(folder / "rgb" / f"{time:.6f}.png", picture(frame))
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        late = time + depth_delay
        write(folder / "depth" / f"{late:.6f}.png", picture(steps(room.depth[index], 1 / 5000)))
        lists["depth"].append(f"{late:.6f} depth/{late:.6f}.png")
        if index % pose_rate == 0:
            numbers = " ".join(f"{value:.10f}" for value in (*room.camera_to_world[index, :3, 3], *turn))
            poses.append(f"{time:.6f} {numbers}")
    for name, lines in lists.items():
        write(folder / f"{name}.txt", "\n".join(lines) + "\n")
    write(folder / "groundtruth.txt", "\n".join(poses) + "\n")
    return folder


def write_seven_scenes(folder: Path, room: PosedVideo, raw_depth: np.ndarray | None = None) -> Path:
    """`raw_depth` is what the depth camera sees; without it the depth is that of the room, registered."""
    ending = "depth.proj.png" if raw_depth is None else "depth.png"
    for index, frame in enumerate(room.frames):
        depth = room.depth[index] if raw_depth is None else raw_depth[index]
        values = steps(depth, 0.001)
        values[depth == 0] = 65535
        write(folder / f"frame-{index:06d}.color.png", picture(frame))
        write(folder / f"frame-{index:06d}.{ending}", picture(values))
        write(folder / f"frame-{index:06d}.pose.txt", matrix_text(room.camera_to_world[index]))
    return folder
