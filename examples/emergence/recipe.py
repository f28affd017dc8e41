"""What a study of emergence is made of: a YAML of rows and seeds, checked before anything is trained."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from trainer.teachers.point_map import CAMERAS

__all__ = ["Phase", "Row", "Study", "read_study"]

SPLITS = ("validation", "test")
TARGETS = ("depth", "grey")
# Entries of a row that count in the phase without questions; rows that share them share its weights.
SHARED_BY_POOLS = ("num_rooms", "image_size", "patch_size", "num_frames", "hidden_size", "text_layers", "say_boxes")
SHARED_BY_POOLS += ("teacher_wavelengths", "teacher_camera", "lesson", "reading", "pool")
OF_POOL = ("depth", "cross_view", "teacher", "target", "learning_rate", "validator")


@dataclass(frozen=True)
class Phase:
    """A phase of a training.

    Args:
        steps: Optimizer steps.
        rooms: Rooms without questions in a step.
        views: Views with questions in a step.
        learning_rate: Of everything but the vision tower.
        vision_learning_rate: Of the vision tower; 0 freezes it.
        words: Cells of a video that get a word to name; None: all of them.
        max_questions: Questions of a view in a step, drawn anew at every visit; None: all of them.
        geometry_learning_rate: Of the heads; None: `learning_rate`.
    """

    steps: int
    rooms: int
    learning_rate: float
    vision_learning_rate: float
    views: int = 0
    words: int | None = None
    max_questions: int | None = None
    geometry_learning_rate: float | None = None


@dataclass(frozen=True)
class Row:
    """What sets one row of the table apart; everything else is the same for all rows of a seed.

    Args:
        pool: Whether the rooms without questions are seen at all, after the first lesson that all rows share.
        depth: Weight of the depth loss.
        cross_view: Weight of the depth predicted from another view.
        teacher: Weight of the alignment with the teacher.
        target: What the depth decoder regresses, and the teacher takes for depth: "depth", or "grey", the brightness
            of the pixels.
        in_questions: Factor of these weights in the question phase; 0: geometry is a first phase only.
        learning_rate: Factor of all learning rates.
        labelled_rooms: Rooms with questions; None: that of the study.
        validator: Changes to `GeometricValidatorConfig.light`.
        label: Words for tables; default: the name.
        more_seeds: Seeds of this row beside those of the study; the control must have them too.
    """

    pool: bool = True
    depth: float = 0.0
    cross_view: float = 0.0
    teacher: float = 0.0
    target: str = "depth"
    in_questions: float = 1.0
    learning_rate: float = 1.0
    labelled_rooms: int | None = None
    validator: dict[str, Any] = field(default_factory=dict)
    label: str | None = None
    more_seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Study:
    """All of a study.

    Args:
        rows: By name.
        seeds: Of initialisation, labelled rooms and order of the data.
        lesson: First phase: words for visual tokens, taken once and shared by all runs.
        reading: Behind it, shared too: questions about the pictures of all rooms that need no depth, so that the
            language model can read regions and write numbers, as one that is pretrained can; None: left out.
        pool: Second phase: words and the row's losses on rooms without questions.
        questions: Last phase: questions, with words and the row's losses on rooms without questions beside.
        control: Row that all others are compared with.
        num_rooms: Training rooms, all with depth and poses.
        labelled_rooms: Those with questions.
        validation_rooms: Rooms to choose by.
        test_rooms: Rooms of the final table, to be opened once.
        first_test_room: Where these begin in the split: a new protocol takes rooms that no earlier one has opened.
        probe_rooms: Rooms of the split that the probes use.
        image_size: Side of a frame in pixels.
        patch_size: Side of a patch in pixels.
        num_frames: Frames a room.
        hidden_size: Width of the model.
        text_layers: Layers of the language model.
        teacher_wavelengths: Of the analytic point map, metres.
        teacher_camera: Whose frame its points are in, see `PointMapTeacher`.
        say_boxes: Whether a question says, after each region that it points at, between which columns and rows of
            visual tokens the region lies. The mean of a region's tokens does not tell its extent.
        answer_jitter: Standard deviation in metres of what is added to the numbers of an answer in training, anew at
            every visit: in the mean a soft label, so that near answers count as near.
        output_dir: Where everything is written.
        pairs: More pairs of rows whose difference is of interest.
        known_results: Folder of results that `--keep` copied; such runs are not done again.
    """

    rows: dict[str, Row]
    seeds: tuple[int, ...]
    lesson: Phase
    pool: Phase
    questions: Phase
    control: str
    reading: Phase | None = None
    num_rooms: int = 4000
    labelled_rooms: int = 100
    validation_rooms: int = 200
    test_rooms: int = 1500
    first_test_room: int = 0
    probe_rooms: int = 150
    image_size: int = 64
    patch_size: int = 8
    num_frames: int = 4
    hidden_size: int = 128
    text_layers: int = 3
    teacher_wavelengths: tuple[float, ...] = (16.0, 8.0, 4.0, 2.0)
    teacher_camera: str = "first"
    say_boxes: bool = False
    answer_jitter: float = 0.0
    output_dir: str = "outputs/emergence"
    pairs: tuple[tuple[str, str], ...] = ()
    known_results: str | None = None

    def runs(self) -> list[tuple[str, int]]:
        """Rows and seeds, all rows of a seed before the next seed, so that a study that is cut short is balanced."""
        return [(name, seed) for seed in self.all_seeds() for name in self.rows if seed in self.seeds_of(name)]

    def seeds_of(self, row: str) -> tuple[int, ...]:
        """Seeds of a row, in order."""
        return tuple(dict.fromkeys((*self.seeds, *self.rows[row].more_seeds)))

    def all_seeds(self) -> tuple[int, ...]:
        """Seeds that some row has: those of all rows first."""
        return tuple(dict.fromkeys(seed for name in self.rows for seed in self.seeds_of(name)))

    def pool_settings(self, row: Row) -> dict[str, Any]:
        """What the weights after the phase without questions depend on, beside the seed."""
        own = {name: value for name, value in dataclasses.asdict(row).items() if name in OF_POOL}
        return {"study": {name: dataclasses.asdict(self)[name] for name in SHARED_BY_POOLS}, "row": own}

    def first_scored(self, split: str) -> int:
        """The first of these rooms."""
        return self.first_test_room if split == "test" else 0

    def scored_name(self, split: str) -> str:
        """Name of these rooms in files."""
        return f"{split}-{self.first_scored(split)}-{self.num_scored(split)}"

    def num_scored(self, split: str) -> int:
        """Rooms of a split that answers are scored on."""
        return {"validation": self.validation_rooms, "test": self.test_rooms}[split]


def read_study(path: str | Path, **changes: Any) -> Study:
    """A study from its YAML.

    Args:
        path: The file.
        **changes: Entries in place of those of the file.

    Raises:
        ValueError: The file is no YAML with entries, or an entry is missing, unknown or of the wrong kind.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} must hold lines of `entry: value`, got {type(entries).__name__}.")
    entries |= changes
    rows = entries.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f"{path}: rows must map names to their entries, got {rows!r}.")
    entries["rows"] = {str(name): _build_row(row or {}, f"{path}: row {name}") for name, row in rows.items()}
    for name in ("lesson", "reading", "pool", "questions"):
        if entries.get(name) is not None:
            entries[name] = _build(Phase, entries[name], f"{path}: {name}")
    entries["seeds"] = _read_seeds(entries.get("seeds"), f"{path}: seeds")
    if not entries["seeds"]:
        raise ValueError(f"{path}: seeds must name at least one.")
    pairs = entries.get("pairs", [])
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{path}: pairs must be a list of pairs of rows, got {pairs!r}.")
    entries["pairs"] = tuple(map(tuple, pairs))
    waves = entries.get("teacher_wavelengths", [1.0])
    if not isinstance(waves, list) or not waves or not all(type(wave) in (int, float) and wave > 0 for wave in waves):
        raise ValueError(f"{path}: teacher_wavelengths must be a list of positive numbers, got {waves!r}.")
    if "teacher_wavelengths" in entries:
        entries["teacher_wavelengths"] = tuple(map(float, waves))
    study = _build(Study, entries, str(path))
    _check(study, path)
    return study


def _read_seeds(seeds: Any, where: str) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{where} must be a list of whole numbers, got {seeds!r}.")
    return tuple(dict.fromkeys(seeds))


def _build_row(entries: Any, where: str) -> Row:
    if isinstance(entries, dict) and "more_seeds" in entries:
        entries = {**entries, "more_seeds": _read_seeds(entries["more_seeds"], f"{where}: more_seeds")}
    return _build(Row, entries, where)


def _build(kind: type, entries: Any, where: str) -> Any:
    """An instance of a dataclass from entries of a file, each of the type that its field has."""
    if not isinstance(entries, dict):
        raise ValueError(f"{where} must hold entries, got {entries!r}.")
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(entries) - set(fields)):
        raise ValueError(f"{where} has unknown entries {unknown}; there are {', '.join(fields)}.")
    required = {
        name
        for name, entry in fields.items()
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(entries)):
        raise ValueError(f"{where} misses {', '.join(missing)}.")
    hints = get_type_hints(kind)
    values = {name: _check_type(value, hints[name], f"{where}: {name}") for name, value in entries.items()}
    return kind(**values)


def _check_type(value: Any, hint: Any, where: str) -> Any:
    allowed = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
    options = getattr(hint, "__args__", ()) if type(None) in getattr(hint, "__args__", ()) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if option not in allowed:
            continue
        if isinstance(value, bool) and option is not bool:
            continue
        if isinstance(value, allowed[option]):
            return float(value) if option is float else value
    if any(option in allowed for option in options):
        names = " or ".join(option.__name__ for option in options if option in allowed)
        raise ValueError(f"{where} must be {names}, got {value!r}.")
    return value


def _check(study: Study, path: str | Path) -> None:
    if study.control not in study.rows:
        raise ValueError(f"{path}: control must be one of the rows {list(study.rows)}, got {study.control!r}.")
    for name, row in study.rows.items():
        if alone := sorted({*row.more_seeds} - {*study.seeds_of(study.control)}):
            raise ValueError(f"{path}: row {name} has seeds {alone} that the control {study.control} does not have.")
        if row.target not in TARGETS:
            raise ValueError(f"{path}: target of row {name} must be one of {TARGETS}, got {row.target!r}.")
        if not row.pool and (row.depth or row.cross_view or row.teacher):
            raise ValueError(f"{path}: row {name} has losses but sees no rooms for them: leave out `pool: false`.")
        if row.target != "depth" and (row.cross_view or (row.teacher and study.teacher_camera != "own")):
            raise ValueError(
                f"{path}: row {name} regresses {row.target}: other views need depth, and so does a teacher, unless "
                "its points are in each frame's own camera (teacher_camera: own)."
            )
        if row.target != "depth" and row.in_questions:
            raise ValueError(f"{path}: row {name} regresses {row.target}: views with questions have depth alone.")
        if not isinstance(row.validator, dict):
            raise ValueError(f"{path}: validator of row {name} must hold entries, got {row.validator!r}.")
        if not name.replace("_", "").isalnum():
            raise ValueError(f"{path}: names of rows are letters, digits and _, got {name!r}.")
        if not 0 < (row.labelled_rooms or study.labelled_rooms) <= study.num_rooms:
            raise ValueError(f"{path}: row {name} labels more than the {study.num_rooms} rooms, or none.")
    if study.teacher_camera not in CAMERAS:
        raise ValueError(f"{path}: teacher_camera must be one of {CAMERAS}, got {study.teacher_camera!r}.")
    if study.answer_jitter < 0:
        raise ValueError(f"{path}: answer_jitter must be a length in metres, got {study.answer_jitter}.")
    if study.questions.views < 1:
        raise ValueError(f"{path}: questions: views must be at least 1, got {study.questions.views}.")
    if unknown := sorted({row for pair in study.pairs for row in pair} - {*study.rows}):
        raise ValueError(f"{path}: pairs name rows {unknown} that there are not.")
