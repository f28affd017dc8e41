"""Readers of the pictures and depth files of captures, one file a frame."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from processing.frame_order_ide3d import sort_frames
from processing.image_reading_ide3d import is_turned, read_image
from processing.limits import check_file
from processing.scene_folders import check_steps, read_depth

__all__ = ["depth_reader", "list_files", "match_names", "picture_reader"]


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files with one of these endings in natural order, without hidden ones.

    Args:
        folder: Folder; one that is not there has no files.
        suffixes: Endings, such as ".color.png".
    """
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if entry.name.lower().endswith(suffixes)]
    return [folder / name for name in sort_frames(name for name in names if not name.startswith("."))]


def match_names(
    files: Sequence[Path], folder: Path, suffix: str, what: str, frame_suffix: str = ""
) -> list[Path] | None:
    """Return for each frame its file in another folder, None where that has none.

    Args:
        files: Pictures of the frames.
        folder: Folder of the other files.
        suffix: Ending of the other files.
        what: Kind of the other files, in messages.
        frame_suffix: Ending of the pictures that is no part of the name; default: from the last dot on.

    Raises:
        FileNotFoundError: Some frames have a file, and others have none.
    """
    stems = [file.name.removesuffix(frame_suffix) if frame_suffix else file.stem for file in files]
    others = [folder / f"{stem}{suffix}" for stem in stems]
    missing = [other.name for other in others if not other.exists()]
    if len(missing) == len(others):
        return None
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {what} files of {len(missing)} frames, such as {missing[0]}. Copy them again, or remove "
            "the pictures of these frames."
        )
    return others


def picture_reader(files: Sequence[Path]) -> Callable[[Sequence[int]], Iterator[np.ndarray]]:
    """Return a function of indices that yields the pictures (h, w, 3) uint8 of these files.

    Cameras, depth and poses belong to the stored pixels, so pictures that an EXIF tag turns are refused.
    """

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            check_file(files[index], None)
            if is_turned(files[index]):
                raise ValueError(
                    f"{files[index]}: the EXIF orientation turns the picture, while cameras and poses belong to the "
                    "stored pixels. Remove the tag (`exiftool -Orientation= FILE`), or turn the geometry too."
                )
            yield read_image(files[index])

    return read


def depth_reader(
    files: Sequence[Path], unit: float, no_measurement: Collection[int] = ()
) -> Callable[[int], np.ndarray]:
    """Return a function of an index that reads 16-bit depth in metres.

    Args:
        files: PNG files, one a frame.
        unit: Metres of one step.
        no_measurement: Steps that stand for no measurement, beside 0.
    """

    def read(index: int) -> np.ndarray:
        check_file(files[index], None)
        steps = read_depth(files[index])
        steps = np.where(np.isin(steps, list(no_measurement)), 0, steps)
        check_steps(steps[None], files[index])
        # A division gives the nearest float32 of millimetres.
        return (steps / (1 / unit)).astype(np.float32)

    return read
