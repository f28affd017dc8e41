"""Readers of the files of one scene in the posed_images layout: names of frames, poses, cameras, depth."""

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from processing.frame_order_ide3d import check_indices, sort_frames
from processing.geometry_rules import check_same_view, find_nonfinite, rescaled_intrinsics
from processing.image_opening_ide3d import open_image
from processing.image_reading_ide3d import check_frame_names, is_turned
from processing.image_wholeness_ide3d import check_picture
from processing.limits import check_file
from processing.scene_names import check_names

__all__ = [
    "check_not_turned",
    "check_steps",
    "choose_names",
    "drop_nonfinite",
    "has_part",
    "is_frame_number",
    "is_there",
    "list_frame_names",
    "lost_pictures",
    "read_depth",
    "read_depths",
    "read_folder_intrinsics",
    "read_matrix",
    "stack_images",
    "warn_of_lost_pictures",
]

logger = logging.getLogger(__name__)

_SATURATED = 2**16 - 1
_MAX_MATRIX = 2**16  # Bytes of a file with a matrix of at most 4 x 4 numbers.
_FIELD_OF_VIEW_TOLERANCE = 0.05  # Relative difference of focal lengths of the colour and depth cameras.


def is_frame_number(stem: str) -> bool:
    """Return whether a file's name, without ending, is a number in plain digits."""
    return stem.isascii() and stem.isdigit()


def is_there(path: Path) -> bool:
    """Return whether an optional file exists; raise where something else stands in its place.

    Raises:
        FileNotFoundError: It is a link to nothing.
        ValueError: It is a folder, a pipe, a device or a socket.
    """
    if not os.path.lexists(path):
        return False
    check_file(path, None)
    return True


def list_frame_names(folder: Path) -> list[str]:
    """Return the names of a scene's frames, without `.jpg`, in natural order.

    Raises:
        FileNotFoundError: A frame is a link to nothing.
        ValueError: Two files are one frame, such as `1.jpg` and `00001.jpg`, or a frame has another ending, or is a
            special file.
    """
    numbered = [file.name for file in folder.glob("*.*") if is_frame_number(file.stem)]
    if foreign := [name for name in numbered if name.lower().endswith((".jpg", ".jpeg")) and name[-4:] != ".jpg"]:
        raise ValueError(f"{folder} holds {sort_frames(foreign)[0]}, where frames end with .jpg. Rename it.")
    files = sort_frames(name for name in numbered if name.endswith(".jpg") and not (folder / name).is_dir())
    for name in files:
        check_file(folder / name, None)
    check_frame_names(files, folder)
    return [name[: -len(".jpg")] for name in files]


def lost_pictures(folder: Path, names: Collection[str]) -> list[str]:
    """Return the names of frames with a pose or depth that are not among `names`."""
    others = {file.stem for suffix in (".txt", ".png") for file in folder.glob(f"*{suffix}")}
    return sort_frames(name for name in others.difference(names) if is_frame_number(name))


def warn_of_lost_pictures(folder: Path, names: Collection[str]) -> None:
    """Warn of frames of a folder that have a pose or depth, but no picture."""
    if lost := lost_pictures(folder, names):
        logger.warning(
            "%s: %d frames such as %s have a pose or depth but no picture, and are left out. Copy the pictures again, "
            "or remove the other files.",
            folder,
            len(lost),
            lost[0],
        )


def read_matrix(file: Path, sides: tuple[int, ...]) -> np.ndarray:
    """Read a square matrix of a text file, one row a line, as float64.

    Args:
        file: Path of the file.
        sides: Numbers of rows that the matrix may have.

    Raises:
        ValueError: The file holds anything else.
    """
    check_file(file)
    if file.stat().st_size > _MAX_MATRIX:
        raise ValueError(f"{file} must hold a matrix, it has more than {_MAX_MATRIX} bytes. Write it again.")
    try:
        text = file.read_text(encoding="utf-8")
        if not text.isascii() or "_" in text:  # `float` reads digits of other scripts, and 1_0 as 10.
            raise ValueError("it has other signs than those of numbers")
        matrix = np.array([[float(x) for x in line.split()] for line in text.splitlines() if line.strip()])
    except ValueError as error:
        raise ValueError(f"{file} must hold a matrix of numbers, one row a line: {error}.") from error
    if matrix.shape not in [(side, side) for side in sides]:
        wanted = " or ".join(f"{side} x {side}" for side in sides)
        raise ValueError(f"{file} must hold a {wanted} matrix, got shape {matrix.shape}. Write it again.")
    return matrix


def read_folder_intrinsics(
    folder: Path, frame_size: Sequence[int], depth_size: Sequence[int] | None
) -> np.ndarray | None:
    """Read the intrinsics (3, 3) of the frames' pixels, preferably of the colour camera.

    Args:
        folder: Folder of one scene, with `intrinsic.txt` or `depth_intrinsic.txt`.
        frame_size: Height and width of the frames.
        depth_size: Height and width of the depth maps; None does without the depth camera.

    Returns:
        Float64 matrix, not checked; None where there is no file.

    Raises:
        ValueError: A file holds no 3 x 3 or 4 x 4 matrix, or frames have another aspect than the maps whose camera is
            taken.
    """
    colour, scaled = folder / "intrinsic.txt", None
    if depth_size is not None and is_there(folder / "depth_intrinsic.txt"):
        stored = read_matrix(folder / "depth_intrinsic.txt", (3, 4))[:3, :3]
        scaled = rescaled_intrinsics(stored, depth_size, frame_size)
    if not is_there(colour):
        if scaled is not None:
            check_same_view(depth_size, frame_size)  # A camera of the maps says nothing of squashed frames.
        return scaled
    intrinsics = read_matrix(colour, (3, 4))[:3, :3]
    if scaled is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = intrinsics[[0, 1], [0, 1]] / scaled[[0, 1], [0, 1]]
        if not np.abs(ratio - 1).max() <= _FIELD_OF_VIEW_TOLERANCE:
            logger.warning("%s: fields of view of colour and depth differ (focal length ratios %s)", folder, ratio)
    return intrinsics


def choose_names(folder: Path, indices: Sequence[int] | None, frame_names: Sequence[str] | None) -> list[str]:
    """Return the names of the frames to read, by name, by index, or all.

    Args:
        folder: Folder of one scene.
        indices: Numbers of frames, counted along the sorted names.
        frame_names: Names of frames; an alternative to `indices`.

    Raises:
        FileNotFoundError: One of them is not there, or none is.
        TypeError: Names that are no texts, or indices that are no whole numbers.
        ValueError: Both are given, an index lies outside, or a name leaves the folder.
    """
    if indices is not None and frame_names is not None:
        raise ValueError("Expected `indices` or `frame_names`, got both. Give one of them.")
    if frame_names is not None:
        frame_names = check_names(frame_names, "frame_names", "name of a frame", is_ordered=True)
        absent = [name for name in frame_names if not (folder / f"{name}.jpg").is_file()]
        if absent or not len(frame_names):
            raise FileNotFoundError(
                f"{folder} lacks the frames {absent}." if absent else "`frame_names` names no frame."
            )
        return frame_names
    names = list_frame_names(folder)
    if not names:
        raise FileNotFoundError(f"{folder} holds no frames. Expected files such as 00000.jpg.")
    warn_of_lost_pictures(folder, names)
    if indices is None:
        return names
    return [names[i] for i in check_indices(indices, len(names), "`indices`")]


def has_part(folder: Path, names: list[str], parts: Collection[str] | None, part: str, suffix: str) -> bool:
    """Return whether to read a part.

    A part that is named must be there for all frames, another one for all or for none.
    """
    if parts is not None and part not in parts:
        return False
    missing = [name for name in names if not is_there(folder / f"{name}{suffix}")]
    if missing and (parts is not None or len(missing) < len(names)):
        what = {"depth": "depth", "camera_to_world": "pose"}[part]
        raise FileNotFoundError(
            f"{folder} lacks {what} files for frames {missing}. Remove these frames or add their {suffix}."
        )
    numbers = {int(name): name for name in missing if is_frame_number(name)}
    for file in sorted(folder.glob(f"*{suffix}")) if numbers else ():
        if is_frame_number(file.stem) and int(file.stem) in numbers:
            raise ValueError(
                f"{file} is of no frame: parts are matched by name. Rename it to {numbers[int(file.stem)]}{suffix}."
            )
    return not missing


def drop_nonfinite(folder: Path, names: list[str], poses: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return names and poses without those that hold inf or nan, and warn of them."""
    dropped = find_nonfinite(poses)
    if len(dropped):
        told = [names[index] for index in dropped]
        logger.warning("%s: left out %d frames without a valid pose: %s", folder, len(dropped), told)
    if len(dropped) == len(names):
        raise ValueError(f"{folder}: no frame has a valid pose, all hold inf or nan. Read it without poses.")
    return [name for index, name in enumerate(names) if index not in dropped], np.delete(poses, dropped, axis=0)


def check_not_turned(folder: Path, names: list[str], turned_depth: list[str]) -> None:
    """Check that frames are stored upright: depth, cameras and poses belong to the stored pixels.

    Args:
        folder: Folder of the scene.
        names: Names of the frames.
        turned_depth: Names of the frames whose depth is not upright, as `read_depths` found them.
    """
    turned = [f"{name}.jpg" for name in names if is_turned(folder / f"{name}.jpg")]
    if turned := turned + [f"{name}.png" for name in turned_depth]:
        raise ValueError(
            f"{folder}: the EXIF orientation of {turned[0]} ({len(turned)} files) turns the picture, while depth, "
            "intrinsics and poses belong to the stored pixels. If the geometry fits the stored pixels, remove the tag "
            "(`exiftool -Orientation= FILE`); if not, turn the geometry. `parts=()` reads the upright frames alone."
        )


def read_depths(folder: Path, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return the steps (V, h, w) of depth files, and the frames whose file is not upright."""
    read = [_read_depth(folder / f"{name}.png") for name in names]
    turned = [name for name, (_, is_turned) in zip(names, read, strict=True) if is_turned]
    return stack_images([steps for steps, _ in read], names), turned


def read_depth(file: Path) -> np.ndarray:
    """Return the steps (h, w) of a depth file of 16 bits."""
    return _read_depth(file)[0]


def _read_depth(file: Path) -> tuple[np.ndarray, bool]:
    """Return the steps (h, w) of a depth file, and whether a tag turns it."""
    with open_image(file) as image:
        check_picture(image)
        steps, has_tag = np.asarray(image), is_turned(image)
    if steps.ndim != 2 or steps.dtype not in (np.uint16, np.int32):
        raise ValueError(f"{file} must be a 16-bit grey PNG, got {steps.dtype} {steps.shape}. Save it as uint16.")
    return steps, has_tag


def check_steps(steps: np.ndarray, where: Path) -> None:
    """Check how many pixels of depth files hold the number for no measurement.

    Args:
        steps: Contents of the files, (V, h, w), uint16 or another integer.
        where: Folder, in messages.

    Raises:
        ValueError: More than half of them do; a few are warned of.
    """
    share = float((steps == _SATURATED).mean())
    told = f"{where}: {share:.1%} of the depth pixels are {_SATURATED}, which stands for no measurement in most files"
    if share > 0.5:
        raise ValueError(f"{told}. Write 0 there.")
    if share:
        logger.warning("%s, and is taken as a distance. Write 0 there.", told)


def stack_images(images: list[np.ndarray], names: list[str]) -> np.ndarray:
    """Return images of one size as one array."""
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise ValueError(
            f"Images of one scene must have one size, got {sorted(sizes)} in frames {names[0]} to {names[-1]}. "
            "Resize them, or leave some out."
        )
    return np.stack(images)
