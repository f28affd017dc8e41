"""The one rule for "is this a pose, a depth map, a camera".

`PosedVideo`, the doctor and the collator ask here, so that what one of them passes none of the others refuses.
`trainer.geometry` keeps tensor checks of its own with the same limits; a test holds the two together.

Every function takes arrays, tensors or nested lists with one entry a frame, and judges them as float32. `find_*`
return the indices of the bad frames, `is_*` judge one value, `check_*` raise ValueError.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "MAX_FOCAL_SHARE",
    "MAX_MEDIAN_DEPTH",
    "MAX_MEDIAN_STEP",
    "MIN_FOCAL_SHARE",
    "MIN_MEDIAN_DEPTH",
    "PINHOLE_TOLERANCE",
    "RIGID_TOLERANCE",
    "as_float32",
    "check_depth",
    "check_intrinsics",
    "check_poses",
    "check_same_view",
    "find_bad_depth",
    "find_bad_poses",
    "find_nonfinite",
    "is_in_metres",
    "is_pose",
    "rescaled_intrinsics",
]

# Largest entry of R^T R - I, and of the last row minus (0, 0, 0, 1). Random rotations as text with six digits are off
# by 2e-6, with four by 2e-4, and in float16 by 8e-4. A scale of 1.001, 5 mm at 5 m, is off by 2e-3, bfloat16 by 5e-3.
RIGID_TOLERANCE = 1e-3
# Largest entry that must be 0 (pixels), and distance of the last entry from 1. An inverse in float32 is off by 1e-5.
PINHOLE_TOLERANCE = 1e-3
MIN_FOCAL_SHARE = 0.05  # Of the frame's side: a field of view of 169 degrees. Normalised cameras lie far below.
MAX_FOCAL_SHARE = 10.0  # A field of view of 6 degrees. No room is seen through that.
MIN_MEDIAN_DEPTH = 0.05  # Metres. No room is seen from that near; metres that were taken for millimetres are.
MAX_MEDIAN_DEPTH = 100.0  # Metres. No room is that deep; millimetres that were taken for metres are.

_MIN_MEASURED = 0.02  # Share of a map's pixels that is not noise.
MAX_MEDIAN_STEP = 50.0  # Metres between frames. No camera in a room moves so far; a step of 5 cm in millimetres is.
_SAME_VIEW = 0.02  # Relative difference of aspects. Frames of 1296 x 968 with depth of 640 x 480 are off by 0.004.


def find_nonfinite(values: Any) -> np.ndarray:
    """Return the indices of the entries that hold NaN or Inf, as float32.

    Shape:
        values: (V, ...).
        output: (bad entries,), increasing.
    """
    array = as_float32(values)
    return np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))


def find_bad_poses(camera_to_world: Any) -> np.ndarray:
    """Return the indices of the matrices that are no finite rigid motion.

    A rigid motion is a rotation without reflection or scale, any translation, and a last row (0, 0, 0, 1).

    Shape:
        camera_to_world: (V, 4, 4), metres.
        output: (bad frames,), increasing.
    """
    return np.flatnonzero(~(_rigid_error(as_float32(camera_to_world)) <= RIGID_TOLERANCE))


def is_pose(matrix: Any) -> bool:
    """Return whether one matrix (4, 4) is a finite rigid motion."""
    return not len(find_bad_poses(as_float32(matrix)[None]))


def check_poses(
    camera_to_world: Any, num_frames: int | None = None, *, is_rigid: bool = True, name: str = "camera_to_world"
) -> None:
    """Raise ValueError unless every matrix is a finite rigid motion.

    Args:
        camera_to_world: Poses (V, 4, 4), camera to world, OpenCV axes, metres.
        num_frames: Number of frames that the poses belong to; None leaves it open.
        is_rigid: Whether to ask for a rigid motion beside finite numbers.
        name: Name of the array in messages.
    """
    poses = as_float32(camera_to_world, name)
    _check_matrices(poses, num_frames, 4, name, "poses", "Have (V, 3, 4)? Add the row 0 0 0 1.")
    if len(broken := find_nonfinite(poses)):
        raise ValueError(
            f"`{name}` of frames {broken.tolist()} is not finite, it holds NaN or Inf. Leave these frames out."
        )
    if is_rigid and len(bad := find_bad_poses(poses)):
        raise ValueError(
            f"`{name}` of frames {bad.tolist()} is not a rigid motion: expected a rotation, a translation in metres "
            f"and a last row 0 0 0 1, got one that is off by {_rigid_error(poses[bad]).max():.2g}. Remove scaling "
            "and mirroring. Is it transposed?"
        )
    steps = np.linalg.norm(np.diff(poses[:, :3, 3].astype(np.float64), axis=0), axis=1)
    if is_rigid and len(steps) and (step := float(np.median(steps))) > MAX_MEDIAN_STEP:
        raise ValueError(
            f"`{name}` must be in metres, but from frame to frame the camera moves by {step:.4g} (median). Are the "
            "translations in millimetres? Divide them by 1000."
        )


def check_intrinsics(
    intrinsics: Any,
    num_frames: int | None = None,
    frame_size: Sequence[int] | None = None,
    *,
    name: str = "intrinsics",
) -> None:
    """Raise ValueError unless every matrix is a finite pinhole camera.

    A pinhole camera is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx > 0 and fy > 0.

    Args:
        intrinsics: Cameras (V, 3, 3), pixels.
        num_frames: Number of frames that the cameras belong to; None leaves it open.
        frame_size: Height and width of the frames in pixels. Where it is known, a normalised camera, whose numbers
            are shares of the frame, is refused too. So is one whose principal point lies outside of the frame.
        name: Name of the array in messages.
    """
    cameras = as_float32(intrinsics, name)
    _check_matrices(cameras, num_frames, 3, name, "cameras", f"Is it 4 x 4? Pass {name}[..., :3, :3].")
    for fault, is_bad, advice in _intrinsics_faults(cameras, frame_size):
        if is_bad.any():
            raise ValueError(f"`{name}` of frames {np.flatnonzero(is_bad).tolist()}: {fault}. {advice}")


def rescaled_intrinsics(intrinsics: np.ndarray, size: Sequence[int], new_size: Sequence[int]) -> np.ndarray:
    """Return the intrinsics (..., 3, 3) of images after a resize, float64.

    Args:
        intrinsics: Cameras (..., 3, 3) of the images before, pixels; integer coordinates are pixel centres.
        size: Height and width before.
        new_size: Height and width after.
    """
    scaled = np.array(intrinsics, np.float64)
    for axis, factor in enumerate((new_size[1] / size[1], new_size[0] / size[0])):
        scaled[..., axis, axis] *= factor
        scaled[..., axis, 2] = (scaled[..., axis, 2] + 0.5) * factor - 0.5
    return scaled


def find_bad_depth(depth: Any) -> np.ndarray:
    """Return the indices of the maps that hold NaN, Inf or negative values.

    Shape:
        depth: (V, h, w), metres; 0 means no measurement.
        output: (bad frames,), increasing.
    """
    maps = as_float32(depth)
    return np.flatnonzero(~(np.isfinite(maps) & (maps >= 0)).reshape(len(maps), -1).all(axis=1))


def is_in_metres(depth: Any) -> bool:
    """Return whether the median measurement is plausible in metres; True where nothing is measured.

    Args:
        depth: z-depth of any shape, finite; 0 means no measurement. The maps of a video are judged together.
    """
    values = as_float32(depth)
    measured = int((values > 0).sum())
    near = int(((values > 0) & (values < MIN_MEDIAN_DEPTH)).sum())
    far = int((values > MAX_MEDIAN_DEPTH).sum())
    # Counting costs a tenth of sorting millions of pixels. The median is the lower one of an even number.
    return not measured or (near <= (measured - 1) // 2 < measured - far)


def check_depth(depth: Any, num_frames: int | None = None, *, name: str = "depth") -> None:
    """Raise ValueError unless `depth` holds maps in metres: finite, not negative, 0 = no measurement.

    Args:
        depth: z-depth (V, h, w), metres.
        num_frames: Number of frames that the maps belong to; None leaves it open.
        name: Name of the array in messages.
    """
    maps = as_float32(depth, name)
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        count = "V" if num_frames is None else num_frames
        raise ValueError(f"`{name}` must have shape ({count}, h, w), got {maps.shape}. Stack one map a frame.")
    if num_frames is not None and len(maps) != num_frames:
        raise ValueError(
            f"Got {num_frames} frames but {len(maps)} depth maps in `{name}`. Select the same frames of both."
        )
    if broken := int((~np.isfinite(maps)).sum()):
        raise ValueError(
            f"`{name}` holds {broken} values that are NaN or Inf, in frames {find_nonfinite(maps).tolist()}. Write 0 "
            "where nothing was measured."
        )
    if negative := int((maps < 0).sum()):
        raise ValueError(
            f"`{name}` holds {negative} negative values, lowest {maps.min():.4g}, in frames "
            f"{find_bad_depth(maps).tolist()}. Write 0 where nothing was measured."
        )
    if not is_in_metres(maps):
        median = np.median(maps[maps > 0])
        advice = "This looks like millimetres, divide by 1000."
        if median < 1:
            advice = "Was it divided by 1000 twice, or is the file in metres (`depth_unit=1.0` of the folder reader)?"
        raise ValueError(f"`{name}` must be in metres, but its median is {median:.4g}. {advice}")
    if strange := _find_strange_maps(maps):
        raise ValueError(
            f"`{name}` must be in metres in every frame, but frames {strange[:9]} measure nothing between "
            f"{MIN_MEDIAN_DEPTH} and {MAX_MEDIAN_DEPTH:g}. Are these maps in another unit? Bring all maps to one."
        )


def _find_strange_maps(maps: np.ndarray) -> list[int]:
    """Return the frames all of whose measurements are too near or far for a room."""
    flat = maps.reshape(len(maps), -1)
    farthest = flat.max(axis=1, initial=0)
    suspects = np.flatnonzero((farthest > 0) & (farthest < MIN_MEDIAN_DEPTH) | (farthest > MAX_MEDIAN_DEPTH))
    found = []
    for frame in suspects:
        measured = flat[frame][flat[frame] > 0]
        is_far_away = measured.max() < MIN_MEDIAN_DEPTH or measured.min() > MAX_MEDIAN_DEPTH
        if is_far_away and len(measured) >= _MIN_MEASURED * flat.shape[1]:
            found.append(int(frame))
    return found


def check_same_view(
    depth_size: Sequence[int], frame_size: Sequence[int], intrinsics: Any = None, *, name: str = "depth"
) -> None:
    """Raise ValueError where maps and frames cannot show the same field of view.

    Args:
        depth_size: Height and width of the depth maps.
        frame_size: Height and width of the frames.
        intrinsics: Cameras (V, 3, 3) of the frames' pixels. Where the pixels of the maps are then square, the frames
            were squashed, and nothing is wrong. None: not known.
        name: Name of the maps in messages.
    """
    if min(depth_size) < 2 <= min(frame_size):
        raise ValueError(
            f"`{name}` must show what the frames show, got maps of {depth_size[0]} x {depth_size[1]} (height x width) "
            f"for frames of {frame_size[0]} x {frame_size[1]}. Give maps of several rows and columns."
        )
    if (frame_size[0] - frame_size[1]) * (depth_size[0] - depth_size[1]) < 0:
        raise ValueError(
            f"`{name}` must show what the frames show, got maps of {depth_size[0]} x {depth_size[1]} (height x width) "
            f"for frames of {frame_size[0]} x {frame_size[1]}. Turn the maps, cameras and poses as the frames are."
        )
    ratio = depth_size[1] / depth_size[0] * frame_size[0] / frame_size[1]
    # A side of few pixels is rounded by up to half a pixel.
    tolerance = _SAME_VIEW + 0.5 / min(*depth_size, *frame_size)
    if abs(ratio - 1) <= tolerance:
        return
    if intrinsics is not None:
        focal = as_float32(intrinsics)[..., [0, 1], [0, 1]].reshape(-1, 2)
        if np.abs(focal[:, 0] / focal[:, 1] * ratio - 1).max() <= tolerance:
            return
    raise ValueError(
        f"`{name}` must show the field of view of the frames, got maps of {depth_size[0]} x {depth_size[1]} (height x "
        f"width) for frames of {frame_size[0]} x {frame_size[1]}, of another aspect. Crop the wider ones, and their "
        "cameras with them; frames that were squashed need intrinsics that say so, fx and fy of their pixels."
    )


def as_float32(values: Any, name: str = "values") -> np.ndarray:
    """Return an array, a tensor or nested lists as a NumPy array of float32.

    Args:
        values: Numbers; text, flags and objects are none.
        name: Name of the array in messages.

    Raises:
        TypeError: Anything but numbers in an array or in nested lists of equal lengths.
    """
    if hasattr(values, "detach"):  # A tensor; NumPy knows no bfloat16 and reads no device memory.
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise TypeError(f"`{name}` must be an array of numbers, got lists of different lengths ({error}).") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"`{name}` must hold numbers, got {array.dtype} such as {str(array.ravel()[:1].tolist())[:40]}."
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _check_matrices(array: np.ndarray, num_frames: int | None, side: int, name: str, what: str, advice: str) -> None:
    if array.ndim != 3 or array.shape[1:] != (side, side):
        count = "V" if num_frames is None else num_frames
        raise ValueError(f"`{name}` must have shape ({count}, {side}, {side}), got {array.shape}. {advice}")
    if not len(array):
        raise ValueError(f"`{name}` must have shape (V, {side}, {side}) with at least one frame, got {array.shape}.")
    if num_frames is not None and len(array) != num_frames:
        raise ValueError(
            f"Got {num_frames} frames but {len(array)} {what} in `{name}`. Select the same frames of both."
        )


def _rigid_error(poses: np.ndarray) -> np.ndarray:
    """Return the distance (V,) of each matrix (V, 4, 4) from a rigid motion, NaN if not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        matrices = poses.astype(np.float64)
        rotation = matrices[:, :3, :3]
        skew = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2))
        last_row = np.abs(matrices[:, 3] - np.array([0, 0, 0, 1])).max(axis=1)
        is_mirrored = ~(np.linalg.det(rotation) > 0)
    error = np.maximum(np.maximum(skew, last_row), np.where(is_mirrored, 2.0, 0.0))
    return np.where(np.isfinite(matrices).all(axis=(1, 2)), error, np.nan)


def _intrinsics_faults(cameras: np.ndarray, frame_size: Sequence[int] | None) -> list[tuple[str, np.ndarray, str]]:
    """Return the possible faults of cameras (V, 3, 3), which have them (V,), and advice."""
    is_finite = np.isfinite(cameras).all(axis=(1, 2))
    focal = cameras[:, [0, 1], [0, 1]]
    rest = np.concatenate([cameras[:, [0, 1, 2, 2], [1, 0, 0, 1]], cameras[:, [2], [2]] - 1], axis=1)
    faults = [
        ("it holds NaN or Inf", ~is_finite, "Check the camera file."),
        ("a focal length is not positive", ~(focal > 0).all(axis=1), "Expected positive focal lengths fx and fy."),
        (
            "it is not a pinhole camera",
            ~(np.abs(rest) <= PINHOLE_TOLERANCE).all(axis=1),
            "Expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels. Is it transposed, or has it skew?",
        ),
    ]
    if frame_size is not None:
        shares = focal / np.array([frame_size[1], frame_size[0]])
        faults.append(
            (
                f"a focal length is below {MIN_FOCAL_SHARE} of the frame's side",
                ~(shares >= MIN_FOCAL_SHARE).all(axis=1),
                "Expected pixels. Is the camera normalised? Multiply its rows by the frame's width and height.",
            )
        )
        size = f"{frame_size[0]} x {frame_size[1]} (height x width)"
        advice = f"Expected the camera of frames of {size}. Is it that of pictures of another size? Scale it to theirs"
        place = (cameras[:, :2, 2] + 0.5) / np.array([frame_size[1], frame_size[0]])
        faults += [
            ("the principal point lies outside of the frame", ~((place >= 0) & (place <= 1)).all(axis=1),
             f"{advice}; frames and cameras that were turned are turned alike."),
            (f"a focal length is above {MAX_FOCAL_SHARE:g} times the frame's side",
             ~(shares <= MAX_FOCAL_SHARE).all(axis=1), f"{advice}."),
        ]  # fmt: skip
    return faults
