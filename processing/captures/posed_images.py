"""The posed_images layout of ScanNet, as `PosedVideo.from_folder` reads it.

`NNNNN.jpg`, `NNNNN.png` (millimetres), `NNNNN.txt` (camera to world, OpenCV axes, metres), `intrinsic.txt` or
`depth_intrinsic.txt`. Conventions are those of ScanNet, see `processing.captures.scannet`.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from processing.argument_rules import check_flag
from processing.captures.capture import PARTS, Capture
from processing.captures.pictures import picture_reader
from processing.posed_video import PosedVideo
from processing.scene_folders import has_part, is_frame_number, list_frame_names, read_matrix

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "posed_images"
LOOKED_FOR = "00000.jpg with 00000.txt, 00000.png or intrinsic.txt"


class PosedImages(Capture):
    """Folder that `PosedVideo.from_folder` reads."""

    def load(
        self,
        frames: int | Sequence[int] | None = None,
        *,
        parts: Collection[str] | None = None,
        skip_invalid_poses: bool = False,
        intrinsics: Any = None,
        scale: float | None = None,
    ) -> PosedVideo:
        """Read frames of the folder."""
        if intrinsics is not None or scale not in (None, 1):
            raise ValueError(
                "`intrinsics` and `scale` do not go with posed_images: write intrinsic.txt, and poses in metres."
            )
        skip = check_flag(skip_invalid_poses, "skip_invalid_poses") and (parts is None or "camera_to_world" in parts)
        index = self.choose(frames, skip_invalid_poses=skip)
        return PosedVideo.from_folder(self.path, indices=index, parts=parts)


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    if not path.is_dir():
        return None
    numbered = {entry.name for entry in path.iterdir() if is_frame_number(entry.stem)}
    first = next((name for name in sorted(numbered) if name.endswith(".jpg")), None)
    if first is None:
        return None
    beside = (
        path / f"{first[:-4]}.txt",
        path / f"{first[:-4]}.png",
        path / "intrinsic.txt",
        path / "depth_intrinsic.txt",
    )
    there = [file.name for file in beside if file.exists()]
    return f"{first} with {', '.join(there)}" if there else None


def read(path: Path) -> Capture:
    """Return the frames of a folder."""
    names = list_frame_names(path)
    files = [path / f"{name}.jpg" for name in names]
    poses = None
    if has_part(path, names, None, PARTS[1], ".txt"):
        poses = np.stack([read_matrix(path / f"{name}.txt", (4,)) for name in names])
    has_depth = has_part(path, names, None, PARTS[0], ".png")
    camera = next((path / name for name in ("intrinsic.txt", "depth_intrinsic.txt") if (path / name).exists()), None)
    cameras = None if camera is None else np.repeat(read_matrix(camera, (3, 4))[None, :3, :3], len(names), 0)
    return PosedImages(
        format=NAME,
        path=path,
        frame_names=tuple(names),
        read_frames=picture_reader(files),
        read_depth=(lambda index: PosedVideo.from_folder(path, indices=[index]).depth[0]) if has_depth else None,
        intrinsics=cameras,
        camera_to_world=poses,
    )
