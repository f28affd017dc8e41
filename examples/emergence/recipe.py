"""Read and check the recipe of a study, a YAML of arms and seeds."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

import yaml

from modeling_ide3d.auxiliary.state_layers import StateLayers
from trainer.teachers.point_map import CAMERAS

from .pseudo import BLOCK

__all__ = ["SPLITS", "VISION_LAYERS", "Arm", "Phase", "Study", "read_study"]

SPLITS = ("validation", "test")
VISION_LAYERS = 4  # of the tower, see `models.build_model`
TARGETS = ("depth", "grey")
# What the weights after the pool phase depend on; arms that agree in all of it share these weights.
SHARED_BY_POOLS = ("num_rooms", "image_size", "patch_size", "num_frames", "hidden_size", "text_layers", "say_boxes")
SHARED_BY_POOLS += ("teacher_wavelengths", "teacher_camera", "lesson", "reading", "pool")
OF_POOL = ("depth", "cross_view", "teacher", "target", "learning_rate", "validator")
# Entries of an arm that came later: at their defaults they are no settings, so that earlier results are still taken.
LATER = ("pose", "scale", "layers", "camera_layer", "pseudo", "normals")
OF_POOL += LATER

Entries = dict[str, object]
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Phase:
    """A phase of a training.

    Args:
        steps: Number of optimizer steps; 0 leaves out the lesson in reading or the pool phase.
        rooms: Number of rooms without questions in a step.
        views: Number of views with questions in a step.
        learning_rate: Learning rate of everything but the vision tower.
        vision_learning_rate: Learning rate of the vision tower; 0 freezes it.
        words: Number of cells of a video that get a word to name; None: all.
        max_questions: Most questions of a view in a step, sampled anew at every visit; None: all.
        geometry_learning_rate: Learning rate of the heads; None: `learning_rate`.
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
class Arm:
    """Losses of a training, which are compared.

    Everything else is the same for all arms of a seed.

    Args:
        pool: Whether the arm sees the rooms without questions, after the lessons that all arms share.
        depth: Weight of the depth loss.
        cross_view: Weight of the loss of depth predicted from another view.
        teacher: Weight of the alignment with the teacher.
        pose: Weight of the poses between frames.
        scale: Weight of the mean depth of a video.
        normals: Weight of the surface normals of patches, in the pool phase.
        layers: Hidden states that the teacher is compared with, such as "vision.2"; none: the final states.
        camera_layer: Hidden state that poses and mean depth are read from; None: the final states.
        pseudo: Whether the rooms without questions have the geometry of `distort_geometry` in place of the truth.
        target: Target of the depth decoder and of the teacher: "depth", or "grey", the brightness of the pixels.
        in_questions: Factor of these weights in the question phase; 0: geometry is a first phase only.
        learning_rate: Factor of all learning rates.
        labelled_rooms: Number of rooms with questions; None: that of the study.
        validator: Changes to `GeometricValidatorConfig.light`.
        label: Name in tables; None: the name in the recipe.
        more_seeds: Seeds of this arm beside those of the study; the control must have them too.
    """

    pool: bool = True
    depth: float = 0.0
    cross_view: float = 0.0
    teacher: float = 0.0
    pose: float = 0.0
    scale: float = 0.0
    normals: float = 0.0
    layers: tuple[str, ...] = ()
    camera_layer: str | None = None
    pseudo: bool = False
    target: str = "depth"
    in_questions: float = 1.0
    learning_rate: float = 1.0
    labelled_rooms: int | None = None
    validator: Entries = field(default_factory=dict)
    label: str | None = None
    more_seeds: tuple[int, ...] = ()

    @property
    def has_losses(self) -> bool:
        """Whether the arm has a loss beside words and answers."""
        return any((self.depth, self.cross_view, self.teacher, self.pose, self.scale, self.normals))

    def settings(self) -> Entries:
        """Return the entries by name, as JSON has them, without later ones at their defaults."""
        found = dataclasses.asdict(self)
        for entry in dataclasses.fields(self):
            if entry.name in LATER and found[entry.name] == entry.default:
                del found[entry.name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True)
class Study:
    """A study: its arms, their seeds, and what all of them share.

    Args:
        rows: Arms by name; each is a row of the tables.
        seeds: Seeds of all arms; a seed sets the heads, the labelled rooms and the order of the data.
        lesson: First phase, taken once and shared by all runs: words for visual tokens.
        reading: Phase behind the lesson, shared too: questions that need no depth. They teach the language model to
            read regions and to write numbers, as a pretrained one can.
        pool: Phase of an arm on rooms without questions: words and the arm's losses.
        questions: Last phase: questions, with words and the arm's losses on rooms without questions beside them.
        control: Name of the arm that all others are compared with.
        num_rooms: Number of training rooms, all with depth and poses.
        labelled_rooms: Number of training rooms with questions.
        validation_rooms: Number of rooms that choices are made on.
        test_rooms: Number of rooms of the final table, to be opened once.
        first_test_room: Index of the first of these; a new protocol takes rooms that no earlier one has opened.
        probe_rooms: Number of rooms of the split that are probed.
        image_size: Side of a frame in pixels.
        patch_size: Side of a patch in pixels.
        num_frames: Number of frames of a room.
        hidden_size: Width of the model.
        text_layers: Number of layers of the language model.
        teacher_wavelengths: Wavelengths of the analytic point map in metres.
        teacher_camera: Camera whose axes its points are in, see `PointMapTeacher`.
        say_boxes: Whether a question also says between which columns and rows of tokens each of its regions lies. The
            mean of a region's tokens does not tell its extent.
        answer_jitter: Standard deviation in metres of what is added to the numbers of a training answer, anew at every
            visit: in the mean a soft label, so that near answers count as near.
        output_dir: Output folder of the study.
        pairs: More pairs of arms to compare.
        known_results: Folder of results that `--keep` wrote; such runs are not done again.
    """

    rows: dict[str, Arm]
    seeds: tuple[int, ...]
    lesson: Phase
    pool: Phase
    questions: Phase
    control: str
    reading: Phase
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
        """Return all pairs of arm and seed.

        The order is seed by seed, so that a study that is cut short is balanced.
        """
        return [(name, seed) for seed in self.all_seeds() for name in self.rows if seed in self.seeds_of(name)]

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds of an arm, in order."""
        return tuple(dict.fromkeys((*self.seeds, *self.rows[arm].more_seeds)))

    def all_seeds(self) -> tuple[int, ...]:
        """Return the seeds that some arm has: first those of all arms."""
        return tuple(dict.fromkeys(seed for name in self.rows for seed in self.seeds_of(name)))

    def labels(self) -> dict[str, str]:
        """Return the names of the arms in tables, by name in the recipe."""
        return {name: arm.label or name for name, arm in self.rows.items()}

    def rooms_labelled(self, arm: str) -> int:
        """Return the number of rooms with questions of an arm."""
        return self.rows[arm].labelled_rooms or self.labelled_rooms

    def pool_settings(self, arm: Arm) -> Entries:
        """Return what the weights after the pool phase depend on, beside the seed."""
        own = {name: value for name, value in arm.settings().items() if name in OF_POOL}
        return {"study": {name: dataclasses.asdict(self)[name] for name in SHARED_BY_POOLS}, "row": own}

    def first_scored(self, split: str) -> int:
        """Return the index of the first room of a split that answers are scored on."""
        return self.first_test_room if split == "test" else 0

    def num_scored(self, split: str) -> int:
        """Return the number of rooms of a split that answers are scored on."""
        return {"validation": self.validation_rooms, "test": self.test_rooms}[split]

    def scored_name(self, split: str) -> str:
        """Return the name of these rooms in files."""
        return f"{split}-{self.first_scored(split)}-{self.num_scored(split)}"


def read_study(path: str | Path, **changes: object) -> Study:
    """Read a study from its YAML.

    Args:
        path: YAML file.
        **changes: Entries in place of those of the file.

    Raises:
        ValueError: If the file is no YAML with entries, or an entry is missing, unknown or of the wrong kind.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}.") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} must hold lines of `entry: value`, got {type(entries).__name__}.")
    entries |= changes
    rows = entries.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f"{path}: `rows` must map names to their entries, got {rows!r}.")
    entries["rows"] = {str(name): _build_arm(row or {}, f"{path}: row {name}") for name, row in rows.items()}
    for name in ("lesson", "reading", "pool", "questions"):
        if name in entries:
            entries[name] = _build(Phase, entries[name], f"{path}: {name}")
    entries["seeds"] = _read_seeds(entries.get("seeds"), f"{path}: seeds")
    if not entries["seeds"]:
        raise ValueError(f"{path}: `seeds` must name at least one.")
    entries["pairs"] = _read_pairs(entries.get("pairs", []), f"{path}: pairs")
    if "teacher_wavelengths" in entries:
        entries["teacher_wavelengths"] = _read_lengths(entries["teacher_wavelengths"], f"{path}: teacher_wavelengths")
    study = _build(Study, entries, str(path))
    _check(study, path)
    return study


def _read_seeds(seeds: object, where: str) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{where} must be a list of whole numbers, got {seeds!r}.")
    return tuple(dict.fromkeys(seeds))


def _read_pairs(pairs: object, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{where} must be a list of pairs of rows, got {pairs!r}.")
    return tuple((str(first), str(second)) for first, second in pairs)


def _read_lengths(waves: object, where: str) -> tuple[float, ...]:
    if not isinstance(waves, list) or not waves or not all(type(wave) in (int, float) and wave > 0 for wave in waves):
        raise ValueError(f"{where} must be a list of positive numbers, got {waves!r}.")
    return tuple(map(float, waves))


def _read_layers(layers: object, where: str) -> tuple[str, ...]:
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise ValueError(f"{where} must be a list of names such as vision.2, got {layers!r}.")
    return tuple(layers)


def _build_arm(entries: object, where: str) -> Arm:
    for name, read in (("more_seeds", _read_seeds), ("layers", _read_layers)):
        if isinstance(entries, dict) and name in entries:
            entries = {**entries, name: read(entries[name], f"{where}: {name}")}
    return _build(Arm, entries, where)


def _build(kind: type[Kind], entries: object, where: str) -> Kind:
    """Return an instance of a dataclass from entries of a file."""
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


def _check_type(value: object, hint: object, where: str) -> object:
    """Return a value if its type is that of a field.

    Whole numbers become floats where the field has these.
    """
    options = get_args(hint) if type(None) in get_args(hint) else (hint,)
    simple = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
    known = [option for option in options if option in simple]
    if not known or (value is None and type(None) in options):
        return value
    for option in known:
        if isinstance(value, simple[option]) and (option is bool or not isinstance(value, bool)):
            return float(value) if option is float else value
    raise ValueError(f"{where} must be {' or '.join(option.__name__ for option in known)}, got {value!r}.")


def _check(study: Study, path: str | Path) -> None:
    if study.control not in study.rows:
        raise ValueError(f"{path}: `control` must be one of the rows {list(study.rows)}, got {study.control!r}.")
    for name in study.rows:
        _check_arm(study, name, f"{path}: row {name}")
    if study.teacher_camera not in CAMERAS:
        raise ValueError(f"{path}: `teacher_camera` must be one of {CAMERAS}, got {study.teacher_camera!r}.")
    if study.answer_jitter < 0:
        raise ValueError(f"{path}: `answer_jitter` must be a length in metres, got {study.answer_jitter}.")
    if study.questions.views < 1:
        raise ValueError(f"{path}: questions: `views` must be at least 1, got {study.questions.views}.")
    if unknown := sorted({name for pair in study.pairs for name in pair} - {*study.rows}):
        raise ValueError(f"{path}: `pairs` names {unknown}; the rows are {list(study.rows)}.")


def _check_arm(study: Study, name: str, where: str) -> None:
    arm = study.rows[name]
    if not name.replace("_", "").isalnum():
        raise ValueError(f"{where}: a name must be of letters, digits and _, got {name!r}.")
    if alone := sorted({*arm.more_seeds} - {*study.seeds_of(study.control)}):
        raise ValueError(f"{where} has seeds {alone} that the control {study.control} does not have: add them there.")
    if arm.target not in TARGETS:
        raise ValueError(f"{where}: `target` must be one of {TARGETS}, got {arm.target!r}.")
    if not arm.pool and arm.has_losses:
        raise ValueError(f"{where} has losses but sees no rooms for them: leave out `pool: false`.")
    if arm.target != "depth" and (arm.cross_view or (arm.teacher and study.teacher_camera != "own")):
        raise ValueError(
            f"{where} regresses {arm.target}: other views need depth, and so does a teacher, unless its points are in "
            "each frame's own camera (`teacher_camera: own`)."
        )
    _check_terms(study, arm, where)
    if arm.target != "depth" and arm.in_questions:
        raise ValueError(
            f"{where} regresses {arm.target}: views with questions have depth alone. Set `in_questions: 0`."
        )
    if not isinstance(arm.validator, dict):
        raise ValueError(f"{where}: `validator` must hold entries, got {arm.validator!r}.")
    if not 0 < study.rooms_labelled(name) <= study.num_rooms:
        raise ValueError(f"{where} labels more than the {study.num_rooms} rooms, or none.")


def _check_terms(study: Study, arm: Arm, where: str) -> None:
    """Raise ValueError unless the pool phase has what the terms of an arm need."""
    has_cameras = bool(arm.pose or arm.scale)
    if has_cameras and (arm.pseudo or arm.target != "depth"):
        raise ValueError(f"{where}: poses and mean depth need depth in metres. Leave out `pseudo` and `target`.")
    if arm.normals and (arm.pseudo or arm.target != "depth" or arm.in_questions):
        raise ValueError(
            f"{where}: normals are those of depth in metres, in the pool phase alone. Leave out `pseudo` and "
            "`target`, and set `in_questions: 0`."
        )
    if arm.normals and not (arm.depth or arm.cross_view):
        raise ValueError(f"{where}: normals are read where the depth decoder reads: give `depth` a weight too.")
    if arm.pseudo and (arm.target != "depth" or arm.in_questions):
        raise ValueError(
            f"{where}: pseudo geometry replaces depth of rooms without questions. Leave out `target`, and set "
            "`in_questions: 0`."
        )
    if arm.pseudo and not (arm.depth or arm.cross_view or arm.teacher):
        raise ValueError(f"{where} has pseudo geometry, but no loss that reads it: leave out `pseudo`.")
    if arm.pseudo and study.image_size % BLOCK:
        raise ValueError(
            f"{where}: pseudo geometry has errors in blocks of {BLOCK} px. `image_size` must be a multiple, got "
            f"{study.image_size}."
        )
    if (arm.layers and not arm.teacher) or (arm.camera_layer is not None and not has_cameras):
        raise ValueError(f"{where}: `layers` need the weight `teacher`, `camera_layer` needs `pose` or `scale`.")
    states = StateLayers(VISION_LAYERS, study.hidden_size, study.text_layers, study.hidden_size)
    named = [*arm.layers, *filter(None, [arm.camera_layer])]
    if arm.layers:
        states.check_list(arm.layers, f"{where}: layers")
    for layer in named:
        states.check(layer, where)
        if layer in {f"language.{number}" for number in range(1, study.text_layers)}:
            raise ValueError(
                f"{where}: the language model has no layers in the pool phase, so there is no {layer}. Name states of "
                f"the tower, language.0 or {states.final}."
            )
