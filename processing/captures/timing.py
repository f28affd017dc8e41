"""Association by time: which depth belongs to a frame, and where the camera was when it was taken."""

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

__all__ = ["check_increasing", "interpolate_poses", "match_times"]

_SAME_TIME = 1e-3  # Seconds. Times are often written in milliseconds.


def check_increasing(times: np.ndarray, where: object) -> None:
    """Raise ValueError unless times are finite and increase."""
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError(f"{where}: times must be finite and increase from row to row. Sort the rows by time.")


def match_times(times: np.ndarray, others: np.ndarray, tolerance: float) -> np.ndarray:
    """Return for each time the index of the nearest other one, or -1.

    The closest pairs are made first, and each other time is given once.
    Source: the rule of `associate.py` of the TUM RGB-D benchmark.

    Args:
        times: Seconds (n,), increasing.
        others: Seconds (m,), increasing.
        tolerance: Largest difference in seconds.
    """
    after = np.searchsorted(others, times)
    near = np.stack([after - 1, after], 1)
    gap = np.abs(others[near.clip(0, len(others) - 1)] - times[:, None])
    gap[(near < 0) | (near >= len(others))] = np.inf
    found, taken = np.full(len(times), -1), np.zeros(len(others), bool)
    for place in np.argsort(gap, axis=None, kind="stable"):
        row, side = divmod(int(place), 2)
        if gap[row, side] > tolerance:
            break
        if found[row] < 0 and not taken[near[row, side]]:
            found[row] = near[row, side]
            taken[near[row, side]] = True
    return found


def interpolate_poses(times: np.ndarray, pose_times: np.ndarray, poses: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the poses (n, 4, 4) at other times, NaN where none is known near enough.

    Between two poses the position moves on a line, and the rotation at constant speed about one axis.

    Args:
        times: Seconds (n,).
        pose_times: Seconds (m,), increasing.
        poses: Rigid motions (m, 4, 4).
        tolerance: Seconds to the pose before and to the pose behind, at most. A pose that is at most a millisecond
            away is taken as it is.
    """
    found = np.full((len(times), 4, 4), np.nan)
    after = np.searchsorted(pose_times, times).clip(0, len(pose_times) - 1)
    before = (after - 1).clip(0)
    is_before_nearer = np.abs(pose_times[before] - times) <= np.abs(pose_times[after] - times)
    nearest = np.where(is_before_nearer, before, after)
    is_same = np.abs(pose_times[nearest] - times) <= _SAME_TIME
    found[is_same] = poses[nearest[is_same]]
    is_between = (pose_times[before] < times) & (times < pose_times[after]) & ~is_same
    is_between &= np.maximum(times - pose_times[before], pose_times[after] - times) <= tolerance
    if is_between.any():
        keep = np.concatenate([[True], np.diff(pose_times) > 0])  # `Slerp` wants times that differ.
        wanted, known = times[is_between], pose_times[keep]
        found[is_between] = np.eye(4)
        found[is_between, :3, :3] = Slerp(known, Rotation.from_matrix(poses[keep, :3, :3]))(wanted).as_matrix()
        for axis in range(3):
            found[is_between, axis, 3] = np.interp(wanted, known, poses[keep, axis, 3])
    return found
