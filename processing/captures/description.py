"""Contents of a capture and whether it can be used, as `ide3d captures` tells it."""

from dataclasses import asdict, dataclass
from typing import Any

from processing.captures.opening import Found, find_capture
from processing.geometry_rules import find_nonfinite

__all__ = ["CaptureState", "describe_capture"]


@dataclass(frozen=True)
class CaptureState:
    """Contents of one capture, as far as they could be read.

    Attributes:
        path: Folder or file.
        format: Key of `FORMATS`.
        evidence: Files that speak for the format.
        num_frames: Number of frames; 0 where nothing could be read.
        frame_size: Height and width of the frames.
        depth_size: Height and width of the depth maps; None without depth.
        num_poses: Number of frames with a finite pose.
        has_intrinsics: Whether the capture says which camera took it.
        is_metric: Whether lengths are in metres.
        num_checked: Number of frames that were read and checked against each other.
        notes: Sentences about what was read and what was left out.
        error: Reason why it cannot be used; empty if it can.
    """

    path: str
    format: str
    evidence: str
    num_frames: int = 0
    frame_size: tuple[int, int] | None = None
    depth_size: tuple[int, int] | None = None
    num_poses: int = 0
    has_intrinsics: bool = False
    is_metric: bool = True
    num_checked: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Return what was found, the notes and the error, a line each."""
        lines = [f"{self.path}: {self.format} ({self.evidence})"]
        if self.frame_size is not None:
            parts = [f"{self.num_frames} frames of {_size(self.frame_size)}"]
            parts.append("no depth" if self.depth_size is None else f"depth of {_size(self.depth_size)}")
            parts.append(f"{self.num_poses or 'no'} poses{'' if self.is_metric else ', not in metres'}")
            parts.append("intrinsics" if self.has_intrinsics else "no intrinsics")
            parts.append(f"{self.num_checked} frames checked")
            lines.append(f"  {', '.join(parts)}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, *([f"  cannot be used: {self.error}"] if self.error else [])])


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def describe_capture(found: Found, num_frames: int = 8) -> CaptureState:
    """Read a few frames of a capture and check them against each other.

    Args:
        found: Capture that was recognised.
        num_frames: Number of frames to read, uniformly; those without a finite pose are passed over.
    """
    state = {"path": str(found.path), "format": found.format, "evidence": found.evidence}
    try:
        capture = find_capture(found.path, format=found.format)
        poses = capture.camera_to_world
        state |= {
            "num_frames": len(capture),
            "num_poses": 0 if poses is None else len(capture) - len(find_nonfinite(poses)),
            "has_intrinsics": capture.intrinsics is not None,
            "is_metric": capture.is_metric,
            "notes": capture.notes,
        }
        scale = None if capture.is_metric else 1.0  # the numbers as they are, without a warning
        video = capture.load(num_frames, skip_invalid_poses=bool(state["num_poses"]), scale=scale)
        state |= {"frame_size": video.frames.shape[1:3], "num_checked": len(video)}
        state["depth_size"] = None if video.depth is None else video.depth.shape[1:]
        video.check()
    except (OSError, ValueError, TypeError, ImportError) as error:
        state["error"] = " ".join(str(error).split())
    return CaptureState(**state)
