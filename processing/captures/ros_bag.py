"""ROS bags, of ROS 1 (`.bag`) and ROS 2 (a folder with `metadata.yaml`), read by rosbags.

Source: the definitions of sensor_msgs/Image, CompressedImage, CameraInfo and tf2_msgs/TFMessage; REP 103 (optical
frames: x right, y down, z forward) and REP 118 (depth images):

    Colour: the one topic of rgb8, bgr8, rgba8, bgra8 or mono8, raw or compressed. Raw ones are
        preferred, and coloured ones to grey ones.
    Depth: the topic of 16UC1 (millimetres) or 32FC1 (metres, NaN = no measurement) in the frame of the colour camera,
        that is registered to it; 0 = no measurement.
    Camera: CameraInfo of the colour camera: K and its distortion, or P where the topic's name says that pictures are
        rectified; coordinates are pixel centres. Distorted pictures are moved to the pinhole camera of the same K.
    Poses: transforms of /tf and /tf_static from the camera's frame to the root of the tree, interpolated between two
        that are at most 0.15 s away. A camera that nothing moves has no poses.

Times are those of the messages' headers; a frame is a picture with depth within 0.02 s.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from processing.captures.capture import Capture
from processing.captures.ros_messages import depth_of, find_lens, is_colour, is_depth, picture_of, stamp_of
from processing.captures.tables import make_poses
from processing.captures.timing import interpolate_poses, match_times
from processing.limits import check_file

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "ros_bag"
LOOKED_FOR = "a file .bag, or a folder with metadata.yaml and .db3 or .mcap files"

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_INFO, _TF = "sensor_msgs/msg/CameraInfo", ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_DEPTH_TOLERANCE, _POSE_TOLERANCE = 0.02, 0.15  # Seconds.


@dataclass(frozen=True)
class _Topic:
    name: str
    frame: str
    is_raw: bool
    is_colour: bool
    is_depth: bool
    is_grey: bool


@dataclass
class _Edge:
    """Transforms from a frame to its parent."""

    parent: str
    is_static: bool
    times: list[float] = field(default_factory=list)
    matrices: list[np.ndarray] = field(default_factory=list)


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    if path.is_file():
        return path.name if path.suffix == ".bag" else None
    files = [file.name for ending in ("*.db3", "*.mcap") for file in path.glob(ending)]
    return f"metadata.yaml, {files[0]}" if files and (path / "metadata.yaml").is_file() else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a bag; whatever rosbags raises becomes a ValueError."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise ImportError("Bags of ROS are read by rosbags: `pip install rosbags`.") from error
    for file in [path] if path.is_file() else path.iterdir():
        check_file(file, None)
    damage = f"{path} cannot be read as a bag of ROS, copy it again"
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as error:  # rosbags raises its own errors, and those of SQLite, YAML, struct and text.
        raise ValueError(f"{damage}: {error!r:.200}.") from error
    try:
        yield reader
    except (FileNotFoundError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ValueError(f"{damage}: {error!r:.200}.") from error
        raise
    except Exception as error:
        raise ValueError(f"{damage}: {error!r:.200}.") from error
    finally:
        reader.close()


def read(path: Path) -> Capture:
    """Find the topics of the colour camera, and read its poses and times."""
    with _opened(path) as reader:
        topics = list(_list_topics(reader))
        colour = _choose_colour(topics, path)
        depth, notes = _choose_depth(topics, colour)
        infos = [message for _, message in _messages(reader, lambda entry: entry.msgtype == _INFO, first_only=True)]
        lens = find_lens([info for info in infos if _frame(info) == colour.frame], colour.name, path)
        when, stamps = _list_stamps(reader, colour.name)
        edges = _read_transforms(reader)
        if depth is not None:
            depth_when, depth_stamps = _list_stamps(reader, depth.name)
            match = match_times(stamps, depth_stamps, _DEPTH_TOLERANCE)
            if not (match >= 0).any():
                raise ValueError(f"{path}: no map of {depth.name} lies within {_DEPTH_TOLERANCE} s of a picture.")
            if lost := int((match < 0).sum()):
                notes.append(f"{lost} of {len(stamps)} pictures have no depth within {_DEPTH_TOLERANCE} s: left out.")
            when, stamps = when[match >= 0], stamps[match >= 0]
            depth_when = depth_when[match[match >= 0]]
    poses, note = _follow(edges, colour.frame, stamps)

    def read_frames(indices: Sequence[int]) -> Iterator[np.ndarray]:
        with _opened(path) as reader:
            for index in indices:
                picture = picture_of(_message_at(reader, colour.name, int(when[index])), f"{path}, {colour.name}")
                yield picture if lens is None or lens.mover is None else lens.mover.move_picture(picture)

    def read_depth(index: int) -> np.ndarray:
        with _opened(path) as reader:
            values = depth_of(_message_at(reader, depth.name, int(depth_when[index])), f"{path}, {depth.name}")
        return values if lens is None or lens.mover is None else lens.mover.move_depth(values)

    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(f"{index:06d}" for index in range(len(stamps))),
        read_frames=read_frames,
        read_depth=None if depth is None else read_depth,
        intrinsics=None if lens is None else np.repeat(lens.intrinsics[None], len(stamps), 0),
        camera_size=None if lens is None else lens.size,
        camera_to_world=poses,
        notes=(f"colour of {colour.name}, depth of {'no topic' if depth is None else depth.name}.", *notes),
    ).with_notes(
        note,
        "" if lens is not None else f"no CameraInfo is of the frame {colour.frame}; give `intrinsics`.",
        "" if lens is None or lens.mover is None else "pictures are distorted; they are moved to a pinhole camera.",
    )


def _frame(message: Any) -> str:
    return message.header.frame_id.lstrip("/")


def _messages(reader: Any, is_wanted: Callable[[Any], bool], *, first_only: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield time and message of wanted connections, or the first message of each."""
    wanted = [entry for entry in reader.connections if is_wanted(entry)]
    for group in [[entry] for entry in wanted] if first_only else [wanted] * bool(wanted):
        for entry, when, content in reader.messages(connections=group):
            yield when, reader.deserialize(content, entry.msgtype)
            if first_only:
                break


def _message_at(reader: Any, topic: str, when: int) -> Any:
    entries = [entry for entry in reader.connections if entry.topic == topic]
    for entry, _, content in reader.messages(connections=entries, start=when, stop=when + 1):
        return reader.deserialize(content, entry.msgtype)
    raise ValueError(f"{topic} has no message at {when} any more. Did the bag change?")


def _list_topics(reader: Any) -> Iterator[_Topic]:
    for name in sorted({entry.topic for entry in reader.connections if entry.msgtype in _IMAGES}):
        first = next(_messages(reader, lambda entry, name=name: entry.topic == name, first_only=True), None)
        if first is not None:
            message = first[1]
            encoding = getattr(message, "encoding", "")
            kinds = (bool(encoding), is_colour(message), is_depth(message), encoding == "mono8")
            yield _Topic(name, _frame(message), *kinds)


def _choose_colour(topics: list[_Topic], path: Path) -> _Topic:
    found = [topic for topic in topics if topic.is_colour]
    found = [topic for topic in found if not topic.is_grey] or found  # infrared cameras beside the colour camera
    for prefer in (lambda topic: topic.is_raw, lambda topic: "rect" in topic.name):  # of one camera
        if len({topic.frame for topic in found}) == 1 and len(found) > 1:
            found = [topic for topic in found if prefer(topic)] or found
    if not found:
        names = [topic.name for topic in topics]
        raise ValueError(f"{path} has no topic of colour pictures; its pictures are {names}. Record one.")
    if len(found) > 1:
        names = ", ".join(topic.name for topic in found)
        raise ValueError(
            f"{path} has several topics of colour pictures: {names}. Write a bag with one: `ros2 bag convert`."
        )
    return found[0]


def _choose_depth(topics: list[_Topic], colour: _Topic) -> tuple[_Topic | None, list[str]]:
    found = [topic for topic in topics if topic.is_depth]
    own = [topic for topic in found if topic.frame == colour.frame]
    if own:
        return own[0], [f"of {', '.join(topic.name for topic in own)} the first is read."] * (len(own) > 1)
    told = ", ".join(f"{topic.name} (frame {topic.frame})" for topic in found)
    return None, [f"depth of {told} is not registered to the colour camera (frame {colour.frame}): left out."] * bool(
        told
    )


def _list_stamps(reader: Any, topic: str) -> tuple[np.ndarray, np.ndarray]:
    """Return times in the bag (nanoseconds), and those of the headers in seconds, increasing."""
    found = [(when, stamp_of(message)) for when, message in _messages(reader, lambda entry: entry.topic == topic)]
    order = np.argsort([stamp for _, stamp in found], kind="stable")
    return np.array([when for when, _ in found])[order], np.array([stamp for _, stamp in found])[order]


def _read_transforms(reader: Any) -> dict[str, _Edge]:
    """Return the transforms from each frame to its parent."""
    edges: dict[str, _Edge] = {}
    for name, is_static in (("/tf_static", True), ("/tf", False)):
        for _, message in _messages(reader, lambda entry, name=name: entry.topic == name and entry.msgtype in _TF):
            for entry in message.transforms:
                child, move = entry.child_frame_id.lstrip("/"), entry.transform
                edge = edges.setdefault(child, _Edge(_frame(entry), is_static))
                turn, place = move.rotation, move.translation
                edge.times.append(stamp_of(entry))
                edge.matrices.append(
                    make_poses(
                        np.array([[place.x, place.y, place.z]]),
                        np.array([[turn.x, turn.y, turn.z, turn.w]]),
                        Path(name),
                    )[0]
                )
    return edges


def _follow(edges: dict[str, _Edge], frame: str, stamps: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Return camera to world (V, 4, 4), and a sentence about it."""
    poses, names = np.tile(np.eye(4), (len(stamps), 1, 1)), [frame]
    is_moved = False
    while names[-1] in edges:
        edge = edges[names[-1]]
        if edge.parent in names:
            raise ValueError(f"/tf goes in a circle: {' to '.join([*names, edge.parent])}. Record one tree.")
        matrices = np.stack(edge.matrices)
        if edge.is_static:
            poses = matrices[-1] @ poses
        else:
            order = np.argsort(edge.times, kind="stable")
            poses = interpolate_poses(stamps, np.array(edge.times)[order], matrices[order], _POSE_TOLERANCE) @ poses
            is_moved = True
        names.append(edge.parent)
    if not is_moved:
        return None, f"nothing in /tf moves the frame {frame}, so there are no poses."
    lost = int((~np.isfinite(poses).all(axis=(1, 2))).sum())
    if lost == len(poses):
        raise ValueError(f"/tf has no transform within {_POSE_TOLERANCE} s of a picture, from {' to '.join(names)}.")
    told = f"; {lost} frames have none, `skip_invalid_poses` leaves them out" if lost else ""
    return poses, f"poses are those of {frame} in {names[-1]}{told}."
