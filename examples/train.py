"""Train with geometry supervision: RGB-D video with poses, a teacher and questions in, an RGB-only model out.

    python examples/train.py examples/recipes/rooms_nano.yaml
    python examples/train.py examples/recipes/rooms_nano.yaml --max_steps 50 --output_dir outputs/try

A folder that holds a checkpoint is resumed. The export lies in `output_dir/export`.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from tqdm import tqdm
from transformers import HfArgumentParser, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import get_last_checkpoint

from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from processing.regions import TokenGrid
from processing.rooms import load_rooms
from processing.rooms.lessons import LessonSamples
from processing.rooms.places import place_sample
from processing.rooms.samples import naming_samples, room_samples
from processing.rooms.wording import plural
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments, export_inference_model
from trainer.mixture import MixtureDataset
from trainer.model_card import create_model_card, list_loss_terms
from trainer.nano import build_nano_config, build_nano_model, build_nano_processor, search_by_words
from trainer.nano_lessons import lesson_kept, name_cells, read_regions
from trainer.teachers import load_teacher

logger = logging.getLogger("train")

LESSON_PASSES = 100  # samples of a room and kind that are not alike
REGION_QUESTIONS = ("distance", "position", "closer", "direction", "colour")


@dataclass
class ModelArguments:
    """Where the weights come from."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Converted or exported checkpoint; default: a nano model from scratch."},
    )
    validator: Literal["light", "paper", "none"] = field(
        default="light", metadata={"help": "Size of the depth decoder, or none."}
    )
    validator_stride: int = field(default=2, metadata={"help": "Pixels of a frame per predicted pixel and side."})
    teacher: str = field(
        default="point_map",
        metadata={"help": "Frozen teacher: point_map, a vision backbone of Transformers by folder or name, or none."},
    )
    hidden_size: int = field(default=128, metadata={"help": "Width of the nano model."})
    text_layers: int = field(default=3, metadata={"help": "Layers of the nano model's language model."})
    rope_theta: float = field(default=300.0, metadata={"help": "Base of the nano model's rotary positions."})
    tie_word_embeddings: bool = field(
        default=False, metadata={"help": "Whether the nano model reads and writes words by the same embeddings."}
    )
    patch_size: int = field(default=8, metadata={"help": "Patch of the nano model in pixels."})
    spatial_pool_stride: int = field(default=1, metadata={"help": "Patches a visual token of the nano model."})


@dataclass
class DataArguments:
    """Rooms and their questions."""

    num_rooms: int = field(default=900, metadata={"help": "Training rooms."})
    num_validation_rooms: int = field(default=64, metadata={"help": "Rooms of the evaluation loss."})
    image_size: int = field(default=64, metadata={"help": "Side of a frame in pixels."})
    num_frames: int = field(default=4, metadata={"help": "Frames a room."})
    data_seed_rooms: int = field(default=0, metadata={"help": "Which family of rooms."})
    room_style: Literal["plain", "loft"] = field(
        default="plain", metadata={"help": "Furniture, shades and sizes of the rooms."}
    )
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
    place_samples: int = field(default=0, metadata={"help": "Samples a training room about places, not objects."})
    naming_steps: int = field(
        default=0, metadata={"help": "Steps of a first lesson for nano models: name what each visual token shows."}
    )
    reading_steps: int = field(
        default=0, metadata={"help": "Steps of a second lesson for nano models: read what a question points at."}
    )
    word_search: bool = field(
        default=False, metadata={"help": "Start heads that look for what a word names (nano models, after naming)."}
    )


def room_options(data: DataArguments) -> dict[str, int | str]:
    """What `load_rooms` has to know beside the split and the number of rooms."""
    return {
        "style": data.room_style,
        "seed": data.data_seed_rooms,
        "image_size": data.image_size,
        "num_frames": data.num_frames,
    }


def load_decoded(split: str, num_rooms: int, data: DataArguments) -> list[dict]:
    """Rooms of a split, their pictures decoded once for all samples that are made of them."""
    rooms = load_rooms(split, num_rooms, **room_options(data))
    pictures = ("frames", "depth", "instance_ids")
    return [
        {**room, **{key: [np.asarray(image) for image in room[key]] for key in pictures}}
        for room in tqdm(rooms, desc=f"Rooms of {split}", unit="room")
    ]


def make_samples(rooms: list[dict], data: DataArguments, grid: TokenGrid, *, training: bool) -> list[dict]:
    """Rooms as samples: all questions of a room packed into one, grounding questions beside, places in training."""
    reference = None if data.reference == "both" else data.reference
    types = REGION_QUESTIONS if data.reference == "region" else None
    samples = []
    rng = np.random.default_rng(data.data_seed_rooms)
    for room in tqdm(rooms, desc="Samples", unit="room"):
        if training:
            views = rng.permutation(data.num_frames)[: data.place_samples]
            samples += [place_sample(room, grid, rng, data.max_questions, view=int(view)) for view in views]
        samples += [
            sample
            for sample in room_samples(room, grid, reference=reference, types=types, max_questions=data.max_questions)
            if "region_targets" not in sample
        ]
        if data.max_grounding and (not training or rng.random() < data.grounding_share):
            samples += room_samples(room, grid, types=("grounding",), max_questions=data.max_grounding)
    return samples


def draw_lessons(rooms: list[dict], data: DataArguments, grid: TokenGrid) -> MixtureDataset:
    """Samples of the kinds in `data.lessons`, in their shares, drawn anew at every visit of a room."""
    shares = {name: float(share) for name, _, share in (lesson.partition("=") for lesson in data.lessons)}
    return MixtureDataset({name: make_lesson(rooms, data, grid, name) for name in shares}, shares)


def make_lesson(rooms: list[dict], data: DataArguments, grid: TokenGrid, name: str) -> LessonSamples:
    """Samples of one kind, more than a training of hours visits."""
    options = {"num_passes": LESSON_PASSES, "max_questions": data.max_questions, "seed": data.data_seed_rooms}
    return LessonSamples(rooms, grid, name, **options)


def draw_validation(rooms: list[dict], data: DataArguments, grid: TokenGrid) -> list[dict]:
    """One sample of each kind and room, the same at every evaluation."""
    kinds = [lesson.partition("=")[0] for lesson in data.lessons]
    return [sample for kind in kinds for sample in LessonSamples(rooms, grid, kind, max_questions=data.max_questions)]


def load_model(
    arguments: ModelArguments, data: DataArguments, texts: list[str], teacher_size: int | None, protocol: str = "clean"
) -> tuple[IDE3DForConditionalGenerationWithGeometry, IDE3DProcessor]:
    """Training model and processor, from a checkpoint or from scratch."""
    changes = {"output_stride": arguments.validator_stride, "protocol": protocol}
    if arguments.model_name_or_path is None:
        processor = build_nano_processor(
            texts,
            image_size=data.image_size,
            patch_size=arguments.patch_size,
            spatial_pool_stride=arguments.spatial_pool_stride,
            num_frames=data.num_frames,
        )
        config = build_nano_config(
            processor,
            hidden_size=arguments.hidden_size,
            text_layers=arguments.text_layers,
            rope_theta=arguments.rope_theta,
            tie_word_embeddings=arguments.tie_word_embeddings,
        )
        validator = None if arguments.validator == "none" else changes
        return build_nano_model(config, teacher_size=teacher_size, validator=validator), processor
    processor = IDE3DProcessor.from_pretrained(arguments.model_name_or_path)
    config = IDE3DForConditionalGenerationWithGeometry.config_class.from_pretrained(arguments.model_name_or_path)
    build = {
        "light": GeometricValidatorConfig.light,
        "paper": GeometricValidatorConfig.from_vision_config,
        "none": lambda *_, **__: None,
    }[arguments.validator]
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(
        arguments.model_name_or_path,
        validator_config=build(config.vision_config, **changes),
        teacher_size=teacher_size,
        dtype=torch.float32,
    )
    return model, processor


def train(
    model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments
) -> tuple[IDE3DTrainer, IDE3DProcessor]:
    """Build everything, train (or resume), and return the trainer and the processor."""
    set_seed(args.seed)
    name = model_arguments.teacher
    teacher = None if name == "none" else load_teacher(name, protocol=args.protocol)
    if model_arguments.model_name_or_path is None:
        grid = TokenGrid(data.image_size, model_arguments.patch_size, model_arguments.spatial_pool_stride)
    else:
        known = IDE3DProcessor.from_pretrained(model_arguments.model_name_or_path)
        grid = TokenGrid(known.image_size, known.patch_size, known.spatial_pool_stride)
    rooms = load_decoded("train", data.num_rooms, data)
    validation = load_decoded("validation", data.num_validation_rooms, data)
    if data.lessons:
        samples, validation = draw_lessons(rooms, data, grid), draw_validation(validation, data, grid)
        questions = [entry for room in rooms for entry in room["questions"]]
    else:
        samples = make_samples(rooms, data, grid, training=True)
        validation = make_samples(validation, data, grid, training=False)
        questions = [entry for sample in samples for entry in sample["questions"]]
    texts = [text for entry in questions for text in (entry["question"], entry["answer"])]
    model, processor = load_model(
        model_arguments, data, texts, teacher.feature_size if teacher else None, args.protocol
    )
    collator = IDE3DDataCollator(processor, teacher=teacher, protocol=args.protocol)
    trainer = IDE3DTrainer(
        model,
        args,
        train_dataset=samples,
        eval_dataset=validation,
        data_collator=collator,
        processing_class=processor,
    )
    checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    if checkpoint:
        logger.info("Resuming from %s", checkpoint)
    else:
        take_lessons(model, collator, rooms, samples, data, grid, args)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, processor


def take_lessons(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: IDE3DDataCollator,
    rooms: list[dict],
    samples: list[dict] | MixtureDataset,
    data: DataArguments,
    grid: TokenGrid,
    args: IDE3DTrainingArguments,
) -> None:
    """The lessons before the training, each done once: an interrupted run goes on with the next."""
    folder = Path(args.output_dir) / "lessons"
    if data.lessons:
        words, pointed = make_lesson(rooms, data, grid, "naming"), make_lesson(rooms, data, grid, "region")
        read = samples
    else:
        words = [sample for room in rooms for sample in naming_samples(room, grid)]
        read = pointed = [
            sample for sample in samples if all(entry["reference"] == "region" for entry in sample["questions"])
        ]
    if data.naming_steps:
        with lesson_kept(model, folder / "naming.safetensors") as is_done:
            if not is_done:
                name_cells(model, collator, words, pointed, args, data.naming_steps)
        if data.word_search:
            search_by_words(model, content_words(collator.processor.tokenizer, rooms))
    if data.reading_steps:
        with lesson_kept(model, folder / "reading.safetensors") as is_done:
            if not is_done:
                read_regions(model, collator, read, args, data.reading_steps)


def content_words(tokenizer: PreTrainedTokenizerBase, rooms: list[dict]) -> list[list[int]]:
    """First tokens of the colours, the kinds and their plurals, as they stand within a question."""
    colours = sorted({thing["colour"] for room in rooms for thing in room["objects"]})
    kinds = sorted({thing["category"] for room in rooms for thing in room["objects"]})
    groups = (colours, kinds, [plural(kind) for kind in kinds])
    return [[tokenizer.encode(f" {word}")[0] for word in group] for group in groups]


def build_parser(**options: str) -> HfArgumentParser:
    """Parser of everything that a recipe or the command line may set."""
    return HfArgumentParser((ModelArguments, DataArguments, IDE3DTrainingArguments), **options)


def read_recipe(path: str | Path, words: list[str]) -> tuple[ModelArguments, DataArguments, IDE3DTrainingArguments]:
    """A YAML recipe, changed by command-line words (`--max_steps 50`).

    Raises:
        ValueError: The file holds no keys with values, or a key that is no argument.
    """
    recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} must hold lines of `argument: value`, got {type(recipe).__name__}.")
    flat = []
    for key, value in recipe.items():
        flat += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return build_parser().parse_args_into_dataclasses([*flat, *words])


def main() -> None:
    """Train by a recipe, evaluate, export."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if {"-h", "--help"} & set(sys.argv[1:]):
        usage = "%(prog)s RECIPE.yaml [--argument value ...]"
        build_parser(usage=usage, description=__doc__.splitlines()[0]).parse_args(["--help"])
    if len(sys.argv) < 2 or not sys.argv[1].endswith((".yaml", ".yml")):
        sys.exit("Expected a recipe, e.g. python examples/train.py examples/recipes/rooms_nano.yaml [--max_steps 50]")
    model_arguments, data, args = read_recipe(sys.argv[1], sys.argv[2:])
    trainer, processor = train(model_arguments, data, args)
    logger.info("Validation: %s", trainer.evaluate())
    card = create_model_card(
        model_name=Path(args.output_dir).name,
        losses=list_loss_terms(trainer),
        teacher=trainer.data_collator.teacher,
        config=trainer.model.config,
    )
    folder = export_inference_model(trainer.model, processor, Path(args.output_dir) / "export", card=card)
    logger.info("Exported to %s", folder)


if __name__ == "__main__":
    main()
