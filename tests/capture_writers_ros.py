"""Writer of ROS bags, by rosbags."""

from pathlib import Path

import numpy as np
from capture_writers import picture, quaternions, steps

from processing import PosedVideo

# The optical frame in the robot's body: x forward, y left, z up, as REP 103 has it, and some way off.
BODY_FROM_CAMERA = np.array([[0.0, 0, 1, 0.2], [-1, 0, 0, 0.05], [0, -1, 0, 0.6], [0, 0, 0, 1]])


def write_ros_bag(
    folder: Path,
    room: PosedVideo,
    *,
    version: int = 2,
    is_compressed: bool = False,
    depth_frame: str = "camera_optical",
    is_float: bool = False,
    extra: tuple[str, ...] = (),
    distortion: tuple[float, ...] = (0.0,) * 5,
    is_moved: bool = True,
) -> Path:
    """Pictures at 10 Hz, depth 4 ms later, transforms at the pictures' times: map - odom - body - camera_optical."""
    from rosbags.rosbag1 import Writer as Writer1
    from rosbags.rosbag2 import Writer as Writer2
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if version == 1 else Stores.ROS2_HUMBLE)
    if version == 1:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
    types = store.types
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("room.bag" if version == 1 else "bag")

    def header(time: float, frame: str):
        second, rest = divmod(round(time * 1e9), 10**9)
        stamp = types["builtin_interfaces/msg/Time"](sec=int(second), nanosec=int(rest))
        first = {"seq": 0} if version == 1 else {}
        return types["std_msgs/msg/Header"](**first, stamp=stamp, frame_id=frame)

    def image(time: float, frame: str, values: np.ndarray, encoding: str):
        content = np.ascontiguousarray(values)
        step = content.nbytes // len(content)
        content = np.frombuffer(content.tobytes(), np.uint8)
        return types["sensor_msgs/msg/Image"](
            header=header(time, frame), height=values.shape[0], width=values.shape[1], encoding=encoding,
            is_bigendian=0, step=step, data=content,
        )  # fmt: skip

    def transforms(time: float, *moves: tuple[str, str, np.ndarray]):
        entries = []
        for parent, child, matrix in moves:
            x, y, z, w = quaternions(matrix[None])[0]
            vector = types["geometry_msgs/msg/Vector3"](*matrix[:3, 3].astype(float))
            turn = types["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w)
            move = types["geometry_msgs/msg/Transform"](translation=vector, rotation=turn)
            entries.append(
                types["geometry_msgs/msg/TransformStamped"](
                    header=header(time, parent), child_frame_id=child, transform=move
                )
            )
        return types["tf2_msgs/msg/TFMessage"](transforms=entries)

    def info(time: float):
        camera = room.intrinsics[0].astype(float)
        names = "DKRP" if version == 1 else "dkrp"
        projection = np.concatenate([camera, np.zeros((3, 1))], 1)
        arrays = (np.array(distortion), camera.ravel(), np.eye(3).ravel(), projection.ravel())
        region = types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        return types["sensor_msgs/msg/CameraInfo"](
            header=header(time, "camera_optical"), height=room.frames.shape[1], width=room.frames.shape[2],
            distortion_model="plumb_bob", **dict(zip(names, arrays, strict=True)), binning_x=0, binning_y=0,
            roi=region,
        )  # fmt: skip

    start, map_from_odom = 1700000000.0, np.eye(4)
    map_from_odom[:3, 3] = 3, -2, 0
    entries = [
        (
            start,
            "/tf_static",
            "tf2_msgs/msg/TFMessage",
            transforms(start, ("map", "odom", map_from_odom), ("body", "camera_optical", BODY_FROM_CAMERA)),
        )
    ]
    for index, frame in enumerate(room.frames):
        time, late = start + index / 10, start + index / 10 + 0.004
        pose = room.camera_to_world[index].astype(np.float64)
        odom_from_body = np.linalg.inv(map_from_odom) @ pose @ np.linalg.inv(BODY_FROM_CAMERA)
        if is_moved:
            entries.append((time, "/tf", "tf2_msgs/msg/TFMessage", transforms(time, ("odom", "body", odom_from_body))))
        entries.append((time, "/camera/color/camera_info", "sensor_msgs/msg/CameraInfo", info(time)))
        if is_compressed:
            message = types["sensor_msgs/msg/CompressedImage"](
                header=header(time, "camera_optical"),
                format="jpeg",
                data=np.frombuffer(picture(frame, "JPEG"), np.uint8),
            )
            entries.append((time, "/camera/color/image_raw/compressed", "sensor_msgs/msg/CompressedImage", message))
        else:
            entries.append(
                (
                    time,
                    "/camera/color/image_raw",
                    "sensor_msgs/msg/Image",
                    image(time, "camera_optical", frame[..., ::-1], "bgr8"),
                )
            )
        for name in extra:
            entries.append((time, name, "sensor_msgs/msg/Image", image(time, name.strip("/"), frame, "rgb8")))
        depth = room.depth[index]
        values = np.where(depth > 0, depth, np.nan).astype("<f4") if is_float else steps(depth, 0.001)
        entries.append(
            (
                late,
                "/camera/aligned/image_raw",
                "sensor_msgs/msg/Image",
                image(late, depth_frame, values, "32FC1" if is_float else "16UC1"),
            )
        )
    with Writer1(path) if version == 1 else Writer2(path, version=9) as writer:
        connections = {}
        for time, topic, kind, message in entries:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            content = store.serialize_ros1(message, kind) if version == 1 else store.serialize_cdr(message, kind)
            writer.write(connections[topic], round(time * 1e9), content)
    return path
