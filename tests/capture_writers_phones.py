"""Writers of captures of phones and tablets: Record3D, Stray Scanner, Polycam, ARKitScenes."""

import json
import zipfile
from pathlib import Path

import av
import numpy as np
from capture_writers import picture, quaternions, steps, write
from capture_writers_posed import OPENGL
from scipy.spatial.transform import Rotation

from processing import PosedVideo


def write_record3d(folder: Path, room: PosedVideo, *, is_archive: bool = True, has_own: bool = True) -> Path:
    import liblzfse

    poses = room.camera_to_world.astype(np.float64) @ OPENGL
    camera = room.intrinsics[0].astype(float)
    camera[:2, 2] += 0.5
    (height, width), (rows, columns) = room.frames.shape[1:3], room.depth.shape[1:]
    metadata = {"w": width, "h": height, "dw": columns, "dh": rows, "fps": 60, "K": camera.T.ravel().tolist()}
    metadata["poses"] = np.concatenate([quaternions(poses), poses[:, :3, 3]], 1).tolist()
    if has_own:
        metadata["K"] = (2 * camera).T.ravel().tolist()  # of no use where frames have their own
        metadata["perFrameIntrinsicCoeffs"] = [camera[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()] * len(room)
    files = {"metadata": json.dumps(metadata).encode()}
    for index, frame in enumerate(room.frames):
        files[f"rgbd/{index}.jpg"] = picture(frame, "JPEG")
        depth = np.where(room.depth[index] > 0, room.depth[index], np.nan).astype("<f4")
        files[f"rgbd/{index}.depth"] = liblzfse.compress(depth.tobytes())
        files[f"rgbd/{index}.conf"] = liblzfse.compress(bytes(rows * columns))
    if not is_archive:
        for name, content in files.items():
            write(folder / name, content)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "room.r3d", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder / "room.r3d"


def write_stray_scanner(folder: Path, room: PosedVideo) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(folder / "rgb.mp4"), "w", options={"crf": "4", "preset": "ultrafast"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *room.frames.shape[1:3], "yuv444p"
        for frame in room.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    camera = room.intrinsics[0].astype(float)
    camera[:2, 2] += 0.5
    write(
        folder / "camera_matrix.csv", "\n".join(", ".join(f"{value:.10g}" for value in row) for row in camera) + "\n"
    )
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for index, (pose, turn) in enumerate(zip(room.camera_to_world, quaternions(room.camera_to_world), strict=True)):
        write(folder / "depth" / f"{index:06d}.png", picture(steps(room.depth[index], 0.001)))
        rows.append(f"{1000 + index / 60:.6f}, {index:06d}, " + ", ".join(f"{v:.10f}" for v in (*pose[:3, 3], *turn)))
    write(folder / "odometry.csv", "\n".join(rows) + "\n")
    return folder


def write_polycam(folder: Path, room: PosedVideo, *, prefix: str = "corrected_") -> Path:
    poses = room.camera_to_world.astype(np.float64) @ OPENGL
    camera, (height, width) = room.intrinsics[0].astype(float), room.frames.shape[1:3]
    for index, frame in enumerate(room.frames):
        name = f"{96 + index * 7}"  # 96, 103: in the order of numbers, not of text
        values = {f"t_{row}{column}": poses[index, row, column] for row in range(3) for column in range(4)}
        values |= {"fx": camera[0, 0], "fy": camera[1, 1], "cx": camera[0, 2] + 0.5, "cy": camera[1, 2] + 0.5}
        values |= {"width": width, "height": height, "blur_score": 100.0}
        write(folder / "keyframes" / f"{prefix}cameras" / f"{name}.json", json.dumps(values))
        write(folder / "keyframes" / f"{prefix}images" / f"{name}.jpg", picture(frame, "JPEG"))
        write(folder / "keyframes" / "depth" / f"{name}.png", picture(steps(room.depth[index], 0.001)))
    return folder


def lie(room: PosedVideo, quarters: int) -> PosedVideo:
    """The room by a device that is held turned clockwise: pictures, camera and axes of the sensor."""
    frames, depth, poses = room.frames, room.depth, room.camera_to_world.astype(np.float64)
    camera = room.intrinsics[0].astype(float)
    for _ in range(quarters):
        height = frames.shape[1]
        frames, depth = frames[:, ::-1].swapaxes(1, 2), depth[:, ::-1].swapaxes(1, 2)
        # Column u of the turned picture is row height - 1 - u, and its row v is column v.
        camera = np.array([[camera[1, 1], 0, height - 1 - camera[1, 2]], [0, camera[0, 0], camera[0, 2]], [0, 0, 1]])
        axes = np.eye(4)
        axes[:3, :3] = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x of the sensor is -y, its y is x
        poses = poses @ axes.T
    return PosedVideo(np.ascontiguousarray(frames), np.ascontiguousarray(depth), camera, poses)


def write_arkitscenes(folder: Path, room: PosedVideo, *, quarters: int = 0, pictures: str = "lowres_wide") -> Path:
    """As the sensor lies; cameras are named a millisecond later, depth 5 ms; a trajectory at the pictures' times."""
    sensor, name = lie(room, quarters), folder.name
    height, width = sensor.frames.shape[1:3]
    camera, rows = sensor.intrinsics[0].astype(float), []
    for index, frame in enumerate(sensor.frames):
        time = 6845.100 + index / 10
        write(folder / pictures / f"{name}_{time:.3f}.png", picture(frame))
        write(folder / "lowres_depth" / f"{name}_{time + 0.005:.3f}.png", picture(steps(sensor.depth[index], 0.001)))
        numbers = (width, height, camera[0, 0], camera[1, 1], camera[0, 2] + 0.5, camera[1, 2] + 0.5)
        words = " ".join(f"{value:.10g}" for value in numbers)
        write(folder / f"{pictures}_intrinsics" / f"{name}_{time + 0.001:.3f}.pincam", words + "\n")
        world_to_camera = np.linalg.inv(sensor.camera_to_world[index].astype(np.float64))
        turn = Rotation.from_matrix(world_to_camera[:3, :3]).as_rotvec()
        rows.append(" ".join(f"{value:.10g}" for value in (time, *turn, *world_to_camera[:3, 3])))
    write(folder / "lowres_wide.traj", "\n".join(rows) + "\n")
    return folder
