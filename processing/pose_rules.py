"""The one rule for "do depth, cameras and poses belong together".

`geometry_rules` judges each part alone. Here measured points of one frame are moved into another one, by what the
poses say. Where both see one surface, the depths agree. A point that floats in front of what the other frame sees
through it contradicts; one behind it is hidden and says nothing. If little agrees, other readings of the numbers are
tried: pose conventions, depth units, cameras, orders of the frames. A sample is refused where one of them fits clearly
better. Where nothing can be told (one frame, no common surface, no motion) nothing is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from processing.geometry_rules import as_float32, find_bad_poses, rescaled_intrinsics

__all__ = [
    "CONVENTION_NAMES",
    "DEPTH_UNITS",
    "POSE_CONVENTIONS",
    "Disagreement",
    "convert_poses",
    "find_disagreement",
]

_FLIP_YZ, _FLIP_Y = np.diag([1.0, -1, -1, 1]), np.diag([1.0, -1, 1, 1])
POSE_CONVENTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "opencv": lambda poses: poses,
    "world_to_camera": np.linalg.inv,
    "opengl": lambda poses: poses @ _FLIP_YZ,
    "opengl_world_to_camera": lambda poses: np.linalg.inv(poses) @ _FLIP_YZ,
    "left_handed": lambda poses: _FLIP_Y @ poses @ _FLIP_Y,
}
CONVENTION_NAMES = {
    "world_to_camera": "world to camera (COLMAP, ARKitScenes)",
    "opengl": "camera to world in OpenGL axes, -z forward (Blender, NeRF, ARKit)",
    "opengl_world_to_camera": "world to camera in OpenGL axes",
    "left_handed": "camera to world in left-handed axes, y up (Unity)",
}
# Metres of one step of common depth files.
DEPTH_UNITS = {"1/256 m": 1 / 256, "1/1000 m": 1e-3, "1/4000 m": 1 / 4000, "1/5000 m": 1 / 5000, "1/10000 m": 1e-4,
               "1 cm": 1e-2, "1 m": 1.0}  # fmt: skip
_FACTORS = tuple(unit * 1000 for unit in DEPTH_UNITS.values() if unit != 1e-3) + (100.0, 0.01, 0.001)
_FINE_FACTORS = tuple(1.2**step for step in range(-22, 23) if abs(step) > 2)  # 0.02 to 55; scales of reconstructions.
_FOCAL_FACTORS = (0.5, 0.7, 1.4, 2.0)

_GAPS = (1, 2, 4, 8)  # Distances of paired frames, along the video.
_MAX_ANGLE = 45.0  # Degrees between paired frames. No convention changes it.
_TOLERANCE = 0.04  # Relative difference of two measurements of one surface; twice the noise of a Kinect at 3 m.
_WIDE_TOLERANCE = 0.1  # The same where no other reading is at hand: predicted depth is that far off.
_MIN_FOCAL = 20.0  # Pixels of the depth map. Coarser maps change too much from pixel to pixel.
_MIN_HITS, _MANY_HITS = 60, 200  # Points of all pairs that have to meet a measurement.
# Shares of a real Kinect walk and of rooms: precision 0.74 to 0.98, doubt at most 0.03. Inverted or OpenGL poses:
# doubt 0.2 to 0.9; depth off by 4: 0.03 (hardly any motion) to 0.6; shuffled poses: 0.2 to 0.8.
_GOOD_PRECISION, _LOW_DOUBT = 0.9, 0.02
_FITS, _MAX_DOUBT, _GAIN, _WINS = 0.6, 0.1, 1.2, 0.75  # What another reading has to reach.
_GOOD_FIT, _SMALL_GAIN = 0.85, 1.08
_LONE_GAIN = 3.0  # Where nothing contradicts the poses: few points meet a measurement, and chance weighs more.
_CONTRADICTED = 0.2  # Doubt that stops without another reading, where `_MANY_HITS` points meet a measurement.
_MAX_PRECISION, _MAX_ORDER_PRECISION = 0.6, 0.8  # Above it, doubt may be noise of depth.
_ROOM = (0.2, 20.0)  # Metres; median depth of a scene.


@dataclass(frozen=True)
class Disagreement:
    """Parts of a sample that do not belong together.

    Attributes:
        part: "camera_to_world", "depth", "intrinsics" or "boxes".
        text: Observation, likely cause and fix, as sentences.
    """

    part: str
    text: str


@dataclass(frozen=True)
class _Reading:
    """One way to read the numbers of a sample."""

    poses: np.ndarray
    cameras: np.ndarray
    factor: float = 1.0
    part: str = ""
    text: str = ""


def convert_poses(poses: Any, convention: str) -> np.ndarray:
    """Return poses (V, 4, 4) of a convention as `camera_to_world` in OpenCV axes, float64.

    Args:
        poses: Matrices (V, 4, 4), metres.
        convention: Key of `POSE_CONVENTIONS`.

    Raises:
        ValueError: An unknown convention, or matrices that have no inverse.
    """
    if convention not in POSE_CONVENTIONS:
        raise ValueError(f"`convention` must be one of {tuple(POSE_CONVENTIONS)}, got {convention!r}.")
    try:
        return POSE_CONVENTIONS[convention](np.asarray(poses, np.float64))
    except np.linalg.LinAlgError as error:
        raise ValueError(f"Poses of convention {convention!r} must have an inverse: {error}.") from error


def find_disagreement(
    depth: Any, intrinsics: Any, camera_to_world: Any, frame_size: Sequence[int], *, is_thorough: bool = False
) -> Disagreement | None:
    """Return what does not belong together of depth, cameras and poses, or None.

    Every part must have passed its check in `geometry_rules`.

    Args:
        depth: z-depth in metres, 0 = no measurement.
        intrinsics: Cameras of the frames' pixels.
        camera_to_world: Poses, OpenCV axes, metres.
        frame_size: Height and width of the frames.
        is_thorough: Whether to look at every frame, try every unit with every convention, and report contradictions
            that no known convention explains. It takes up to a second; otherwise it takes milliseconds.

    Shape:
        depth:           (V, h, w).
        intrinsics:      (V, 3, 3), pixels.
        camera_to_world: (V, 4, 4).
    """
    maps, poses = as_float32(depth), as_float32(camera_to_world).astype(np.float64)
    if len(maps) < 2 or len(find_bad_poses(poses)):
        return None
    cameras = rescaled_intrinsics(as_float32(intrinsics), frame_size, maps.shape[1:])
    if cameras[:, [0, 1], [0, 1]].min() < _MIN_FOCAL:
        return None
    scene = _Scene(maps, _choose_pairs(poses, 24 if is_thorough else 8), 16 if is_thorough else 12)
    told = _Reading(poses, cameras)
    first = scene.compare(told)
    if first.hits.sum() < _MIN_HITS or (
        first.precision < _GOOD_PRECISION and (first.doubt > _LOW_DOUBT or first.precision < _FITS)
    ):
        better: list[tuple[_Reading, _Score]] = []
        for readings in _readings(told, maps.shape[1:], is_thorough, better):
            scored = ((reading, scene.compare(reading)) for reading in readings)
            better += [(reading, score) for reading, score in scored if score.beats(first)]
        if better:
            reading, score = max(better, key=lambda pair: pair[1].agreed.sum())
            return _explain(reading, first, score, _median(maps))
    return _find_contradiction(maps, told) if is_thorough else None


@dataclass(frozen=True)
class _Score:
    """Points of each pair (n,) that meet, agree with or contradict a measurement."""

    measured: np.ndarray
    hits: np.ndarray
    agreed: np.ndarray
    contradicted: np.ndarray

    @property
    def precision(self) -> float:
        return float(self.agreed.sum() / max(1, self.hits.sum()))

    @property
    def doubt(self) -> float:
        return float(self.contradicted.sum() / max(1, self.agreed.sum() + self.contradicted.sum()))

    def beats(self, other: "_Score") -> bool:
        """Return whether this reading fits, and clearly better than another one."""
        gain = self.agreed - other.agreed
        telling = np.abs(gain) > 3
        if other.doubt <= _LOW_DOUBT:
            least = _LONE_GAIN
        else:  # Little motion changes few points; then the points that do not agree have to become few.
            is_close = self.precision >= _GOOD_FIT and 1 - self.precision <= (1 - other.precision) / 2
            least = _SMALL_GAIN if is_close else _GAIN
        return bool(
            self.hits.sum() >= _MIN_HITS
            and self.precision >= _FITS
            and self.doubt <= min(_MAX_DOUBT, max(other.doubt / 2, 2 * _LOW_DOUBT))
            and self.agreed.sum() >= least * other.agreed.sum()
            and telling.any()
            and (gain[telling] > 0).mean() >= _WINS
        )


class _Scene:
    """Points of a few pairs of frames, on a coarse grid of pixels."""

    def __init__(self, maps: np.ndarray, pairs: np.ndarray, side: int):
        self.maps, self.pairs = maps, pairs
        height, width = maps.shape[1:]
        rows, columns = (
            ((np.arange(min(side, size)) + 0.5) * size / min(side, size)).astype(int) for size in (height, width)
        )
        v, u = np.meshgrid(rows, columns, indexing="ij")
        self.pixels = np.stack([u.ravel(), v.ravel()])
        self.depth = maps[pairs[:, 0, None], self.pixels[1], self.pixels[0]].astype(np.float64)

    def compare(
        self, reading: _Reading, tolerance: float = _TOLERANCE, pose_pairs: np.ndarray | None = None
    ) -> _Score:
        """Return how the points of a first frame fit what the second one measured."""
        first, second = self.pairs.T
        camera = reading.cameras
        focal, centre = camera[:, [0, 1], [0, 1]], camera[:, :2, 2]
        rays = (self.pixels - centre[first][..., None]) / focal[first][..., None]
        points = np.concatenate([rays * self.depth[:, None], self.depth[:, None]], 1)
        source, target = (self.pairs if pose_pairs is None else pose_pairs).T
        motion = np.linalg.inv(reading.poses[target]) @ reading.poses[source]
        x, y, z = (motion[:, :3, :3] @ points + motion[:, :3, 3:] / reading.factor).transpose(1, 0, 2)
        height, width = self.maps.shape[1:]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = np.rint(x / z * focal[second, :1] + centre[second, :1])
            v = np.rint(y / z * focal[second, 1:] + centre[second, 1:])
        is_inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height) & (self.depth > 0)
        u, v = (np.where(is_inside, value, 0).astype(np.int32) for value in (u, v))
        seen = self.maps[second[:, None], v, u]
        is_hit = is_inside & (seen > 0)
        ratio = np.where(is_hit, z, 1.0) / np.where(is_hit, seen, 1.0)
        pixel = 1.5 / camera[:, 0, 0].min()  # Slanted surfaces change from pixel to pixel.
        agreed = is_hit & (np.abs(ratio - 1) < tolerance + pixel)
        contradicted = is_hit & (ratio < 1 - 2.5 * tolerance - 2 * pixel)
        counts = (self.depth > 0, is_hit, agreed, contradicted)
        return _Score(*(count.sum(1) for count in counts))


def _choose_pairs(poses: np.ndarray, most: int) -> np.ndarray:
    """Return pairs (n, 2) of near frames whose cameras point alike."""
    rotation = poses[:, :3, :3]
    found = []
    for gap in _GAPS:
        start = np.arange(max(0, len(poses) - gap))
        trace = (rotation[start] * rotation[start + gap]).sum((1, 2))
        start = start[trace >= 1 + 2 * np.cos(np.radians(_MAX_ANGLE))]
        kept = start[np.unique(np.linspace(0, len(start) - 1, min(len(start), -(-most // len(_GAPS)))).astype(int))]
        found += [(i, i + gap) if turn % 2 else (i + gap, i) for turn, i in enumerate(kept)]
    return np.array(found, np.int64).reshape(-1, 2)


def _median(maps: np.ndarray) -> float:
    few = maps[:, ::8, ::8]
    return float(np.median(few[few > 0])) if (few > 0).any() else 0.0


def _readings(told: _Reading, size: Sequence[int], is_thorough: bool, better: Sequence) -> Iterator[list[_Reading]]:
    """Yield other readings of the numbers; `better` are those that fit so far."""
    conventions = list(_other_conventions(told))
    readings = [*conventions, *(replace(told, factor=factor) for factor in _FACTORS)]
    readings += _other_cameras(told, size, is_thorough)
    yield [*readings, *_other_orders(told)] if is_thorough else readings
    if is_thorough and all(score.precision < _GOOD_PRECISION for _, score in better):
        yield [replace(reading, factor=factor) for reading in conventions for factor in _FACTORS]
    if is_thorough and not better:
        yield [replace(told, factor=factor) for factor in _FINE_FACTORS]


def _other_conventions(told: _Reading) -> Iterator[_Reading]:
    def reading(poses: np.ndarray, text: str) -> _Reading:
        return _Reading(poses, told.cameras, 1.0, "camera_to_world", text)

    for name, words in CONVENTION_NAMES.items():
        fix = f'`PosedVideo.from_folder(..., convention="{name}")`, or `convert_poses(poses, "{name}")`'
        fix = f"the poses are read as {words}: {fix} of `processing.pose_rules`"
        yield reading(convert_poses(told.poses, name), fix)
    transposed = told.poses.copy()
    transposed[:, :3, :3] = told.poses[:, :3, :3].transpose(0, 2, 1)
    yield reading(transposed, "the rotations are transposed: `camera_to_world[:, :3, :3].transpose(0, 2, 1)`")
    for turns, words in ((1, "a quarter"), (2, "half"), (3, "three quarters")):
        turn = np.eye(4)
        turn[:2, :2] = np.linalg.matrix_power(np.array([[0.0, -1], [1, 0]]), turns)
        fix = f"the cameras are turned by {words} about the viewing axis: turn pictures, cameras and poses alike"
        yield reading(told.poses @ turn, fix)


def _other_cameras(told: _Reading, size: Sequence[int], is_thorough: bool) -> Iterator[_Reading]:
    ratio = np.array([size[1], size[0]]) / (2 * told.cameras[0, :2, 2] + 1)
    if ratio.min() > 0 and abs(ratio[0] / ratio[1] - 1) < 0.1 and abs(ratio[0] - 1) > 0.1:
        scaled = told.cameras.copy()
        scaled[:, :2] *= ratio[:, None]
        fix = f"the intrinsics are multiplied by {ratio[0]:.3g}: they are those of pictures of another size"
        yield _Reading(told.poses, scaled, 1.0, "intrinsics", fix)
    for factor in _FOCAL_FACTORS if is_thorough else ():
        scaled = told.cameras.copy()
        scaled[:, [0, 1], [0, 1]] *= factor
        fix = f"the focal lengths are multiplied by about {factor}: they are those of another camera"
        yield _Reading(told.poses, scaled, 1.0, "intrinsics", fix)


def _other_orders(told: _Reading) -> Iterator[_Reading]:
    count = len(told.poses)
    by_text = sorted(range(count), key=str)
    orders = {
        "in reverse order": np.arange(count)[::-1],
        "one frame later": np.arange(count).clip(1) - 1,
        "one frame earlier": (np.arange(count) + 1).clip(max=count - 1),
        "in the order of numbers (they were sorted as text, 10 before 2)": np.argsort(by_text),
        "in the order of text (the frames were sorted as text, 10 before 2)": np.array(by_text),
    }
    for words, order in orders.items():
        fix = f"the poses go to the frames {words}: match poses, depth and frames by their names"
        yield _Reading(told.poses[order], told.cameras, 1.0, "camera_to_world", fix)


def _explain(reading: _Reading, told: _Score, score: _Score, median: float) -> Disagreement:
    """Return the finding that another reading fits; `median` is that of the depth in metres."""
    part, fixes = reading.part, [reading.text] if reading.text else []
    if reading.factor != 1:
        unit = next((name for name, unit in DEPTH_UNITS.items() if abs(unit * 1000 / reading.factor - 1) < 0.15), None)
        if unit and _ROOM[0] <= median * reading.factor <= _ROOM[1]:
            part = part or "depth"
            fixes.append(
                f"depth is multiplied by {reading.factor:.3g}, as files in steps of {unit} need: "
                f"`PosedVideo.from_folder(..., depth_unit={unit.removesuffix(' m').replace('1 cm', '0.01')})`"
            )
        else:
            part = part or "camera_to_world"
            fixes.append(
                f"translations are multiplied by {1 / reading.factor:.3g}: poses and depth must both be in metres, "
                "and reconstructions from pictures alone have no scale of their own"
            )
    text = (
        f"`depth`, `intrinsics` and `camera_to_world` do not belong together: moved by the poses, {_share(told)} of "
        f"the points agree with the depth of another frame; {_share(score)} do if {', and if '.join(fixes)}."
    )
    return Disagreement(part, text)


def _share(score: _Score) -> str:
    return f"{score.agreed.sum() / max(1, score.measured.sum()):.0%}"


def _find_contradiction(maps: np.ndarray, told: _Reading) -> Disagreement | None:
    """Return that points float in front of what other frames see."""
    scene = _Scene(maps, _choose_pairs(told.poses, len(_GAPS) * len(maps)), 12)
    wide = scene.compare(told, _WIDE_TOLERANCE)
    is_wrong = wide.precision <= _MAX_PRECISION and wide.doubt >= _CONTRADICTED
    if wide.hits.sum() >= _MANY_HITS and (is_wrong or _fits_other_frames(maps, told, scene)):
        return Disagreement(
            "camera_to_world",
            f"`depth` and `camera_to_world` contradict each other: of the points that meet a measurement of another "
            f"frame, {wide.precision:.0%} agree within {_WIDE_TOLERANCE:.0%} and "
            f"{wide.contradicted.sum() / wide.hits.sum():.0%} float far in front of it, and no known convention, unit "
            "or order fits. Do the poses, the depth or the camera belong to other frames? Match them by their names.",
        )
    frames = _find_lone_frames(maps, told)
    if not frames:
        return None
    return Disagreement(
        "camera_to_world",
        f"the poses of frames {frames} contradict the depth of their neighbours, which agree with each other. Leave "
        "these frames out, or give them their own poses.",
    )


def _fits_other_frames(maps: np.ndarray, told: _Reading, scene: _Scene) -> bool:
    """Return whether other frames' poses fit as well, in any order, or better."""
    count, score = len(told.poses), scene.compare(told)
    if count < 4 or score.precision > _MAX_ORDER_PRECISION or score.doubt < 2 * _LOW_DOUBT:
        return False
    rng = np.random.default_rng(0)
    orders = (replace(told, poses=told.poses[rng.permutation(count)]) for _ in range(19 if count > 4 else 0))
    if score.agreed.sum() <= max((scene.compare(other).agreed.sum() for other in orders), default=-1):
        return True
    chosen = np.unique(np.linspace(0, count - 1, 24).astype(int))
    first, second = (index.ravel() for index in np.meshgrid(chosen, chosen, indexing="ij"))
    others = np.stack([first, second], 1)[first != second]
    found = []
    for frame in np.unique(np.linspace(0, count - 2, 8).astype(int)):
        pair = np.array([[frame, frame + 1]])
        few = _Scene(maps, pair, 10)
        own = few.compare(told).agreed[0]
        few.pairs, few.depth = pair.repeat(len(others), 0), few.depth.repeat(len(others), 0)
        score = few.compare(told, pose_pairs=others)
        is_fit = (score.agreed >= _GOOD_FIT * score.hits) & (score.hits >= 0.4 * score.measured)
        found.append(score.agreed[is_fit].max(initial=0) >= max(1.5 * own, 20))
    return float(np.mean(found)) >= 0.5


def _find_lone_frames(maps: np.ndarray, told: _Reading) -> list[int]:
    """Return the few frames whose points contradict their neighbours, while the others agree."""
    pairs = [(i + sign * gap, i) for i in range(len(maps)) for gap in (1, 2) for sign in (-1, 1)]
    pairs = np.array([pair for pair in pairs if 0 <= pair[0] < len(maps)])
    score = _Scene(maps, pairs, 12).compare(told, _WIDE_TOLERANCE)

    def counts(chosen: np.ndarray) -> np.ndarray:
        return np.array([values[chosen].sum() for values in (score.hits, score.agreed, score.contradicted)])

    per_frame = np.array([counts((pairs == frame).any(1)) for frame in range(len(maps))])
    is_lone = (per_frame[:, 0] >= _MIN_HITS) & (per_frame[:, 2] > per_frame[:, 1])
    hits, agreed, _ = counts(~is_lone[pairs].any(1))
    if 3 * is_lone.sum() > len(maps) or hits < _MIN_HITS or agreed < 0.8 * hits:
        return []
    return np.flatnonzero(is_lone).tolist()
