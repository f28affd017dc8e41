"""Train with geometry supervision: RGB-D video with poses, a teacher and questions in, an RGB-only model out.

    python examples/train.py examples/recipes/rooms_nano.yaml
    python examples/train.py examples/recipes/rooms_nano.yaml --max_steps 50 --output_dir outputs/try
    python examples/train.py examples/recipes/ide3d_7b.yaml --dry-run

`torchrun` and `accelerate launch` start it in several processes; `--dry-run` needs no data and no weights.
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
from torch import nn
from tqdm import tqdm
from transformers import HfArgumentParser, set_seed
from transformers.trainer_utils import get_last_checkpoint

from examples.room_lessons import choose_trainer, draw_lessons, draw_validation, take_lessons
from examples.training_setup import (
    STORED_TEACHER,
    BenchmarkArguments,
    WeightArguments,
    build_benchmarks,
    check_weights,
    export,
    plan_batch,
    read_config,
)
from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import (
    GeometricValidatorConfig,
    IDE3DForConditionalGenerationWithGeometry,
    load_converted_for_training,
)
from processing import IDE3DProcessor
from processing.regions import TokenGrid
from processing.rooms import load_rooms
from processing.rooms.places import place_sample
from processing.rooms.samples import room_samples
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.adapters import add_adapters
from trainer.mixture import MixtureDataset
from trainer.nano import build_nano_config, build_nano_model, build_nano_processor
from trainer.step_estimate import Placement, StepEstimate, estimate_step
from trainer.teachers import Teacher, load_teacher

logger = logging.getLogger("train")

NUM_DRY_ROOMS = 16  # the dry run looks at these
REGION_QUESTIONS = ("distance", "position", "closer", "direction", "colour")


@dataclass
class ModelArguments(WeightArguments):
    """Where the weights come from."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Converted or exported checkpoint; default: a nano model from scratch."},
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
    hidden_size: int = field(default=128, metadata={"help": "Width of the nano model."})
    text_layers: int = field(default=3, metadata={"help": "Layers of the nano model's language model."})
    rope_theta: float = field(default=300.0, metadata={"help": "Base of the nano model's rotary positions."})
    tie_word_embeddings: bool = field(
        default=False, metadata={"help": "Whether the nano model reads and writes words by the same embeddings."}
    )
    patch_size: int = field(default=8, metadata={"help": "Patch of the nano model in pixels."})
    spatial_pool_stride: int = field(default=1, metadata={"help": "Patches a visual token of the nano model."})


@dataclass
class DataArguments(BenchmarkArguments):
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
    reading_lessons: list[str] = field(
        default_factory=list, metadata={"help": "Kinds of samples of the second lesson; default: those of `lessons`."}
    )
    lesson_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the lessons before the training; default: that of the training."}
    )
    word_search: bool = field(
        default=False, metadata={"help": "Start heads that look for what a word names (nano models, after naming)."}
    )
    mention_weight: float = field(
        default=0.0, metadata={"help": "Of the term that tells attention where what a word names is, for lessons."}
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


def build_samples(
    rooms: list[dict], data: DataArguments, grid: TokenGrid, *, training: bool
) -> list[dict] | MixtureDataset:
    """Rooms as samples: drawn anew by `lessons`, or as the rooms are stored."""
    if not data.lessons:
        return make_samples(rooms, data, grid, training=training)
    return draw_lessons(rooms, data, grid) if training else draw_validation(rooms, data, grid)


def build_teacher(arguments: ModelArguments, args: IDE3DTrainingArguments) -> Teacher | None:
    """The teacher that looks at the frames, or looks them up; that of stored features comes with the samples."""
    if arguments.teacher in ("none", "stored"):
        return None
    return load_teacher(arguments.teacher, protocol=args.protocol)


def load_model(
    arguments: ModelArguments, data: DataArguments, texts: list[str], teacher_size: int | None, protocol: str = "clean"
) -> tuple[IDE3DForConditionalGenerationWithGeometry, IDE3DProcessor]:
    """Training model and processor, from a checkpoint or from scratch."""
    changes = validator_changes(arguments, protocol)
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
    options = {"dtype": getattr(torch, arguments.dtype)}
    if arguments.attention is not None:
        options["attn_implementation"] = arguments.attention
    if arguments.validator == "original":
        return load_converted_for_training(arguments.model_name_or_path, **options), processor
    config = IDE3DForConditionalGenerationWithGeometry.config_class.from_pretrained(arguments.model_name_or_path)
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(
        arguments.model_name_or_path,
        validator_config=build_validator(arguments.validator, config, changes),
        teacher_size=teacher_size,
        **options,
    )
    return model, processor


def validator_changes(arguments: ModelArguments, protocol: str) -> dict:
    """What the arguments change of a depth decoder."""
    changes = {"output_stride": arguments.validator_stride, "protocol": protocol}
    if arguments.validator_chunk is not None:
        changes["frames_per_chunk"] = arguments.validator_chunk
    return changes


def build_validator(kind: str, config: IDE3DConfig, changes: dict) -> GeometricValidatorConfig | None:
    """Sizes of the depth decoder on a model; those of the original are the paper's."""
    builders = {"light": GeometricValidatorConfig.light, "none": lambda *_, **__: None}
    return builders.get(kind, GeometricValidatorConfig.from_vision_config)(config.vision_config, **changes)


def adapt(model: IDE3DForConditionalGenerationWithGeometry, arguments: ModelArguments) -> nn.Module:
    """The model with adapters, if they are asked for; ValueError where there is nothing to adapt."""
    if not arguments.lora_rank:
        return model
    if arguments.model_name_or_path is None:
        raise ValueError("Adapters (lora_rank) need a checkpoint: name one by model_name_or_path.")
    return add_adapters(model, arguments.lora_rank, arguments.lora_alpha, arguments.lora_dropout)


def check_source(arguments: ModelArguments, data: DataArguments) -> None:
    """Raise ValueError where the data do not go with the model or the teacher."""
    if data.source == "benchmarks" and arguments.model_name_or_path is None:
        raise ValueError("source: benchmarks needs model_name_or_path, a converted or exported checkpoint.")
    if data.source == "rooms" and arguments.teacher == "stored":
        raise ValueError("teacher: stored needs source: benchmarks; rooms have no stored features.")


def dry_run(model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments) -> StepEstimate:
    """What a step takes: the model is built on the meta device and nothing is downloaded, loaded or trained."""
    check_source(model_arguments, data)
    teacher = build_teacher(model_arguments, args)
    teacher_size = model_arguments.planned_teacher_size if model_arguments.teacher == "stored" else None
    teacher_size = teacher.feature_size if teacher else teacher_size
    if data.source == "rooms":
        grid = find_grid(model_arguments, data)
        samples = build_samples(load_decoded("train", NUM_DRY_ROOMS, data), data, grid, training=True)
        samples = sorted(
            (samples[index] for index in range(min(len(samples), 8 * NUM_DRY_ROOMS))),
            key=lambda sample: (-len(sample["frames"]), -len(str(sample["messages"]))),
        )
        texts = list_texts(samples)
    if model_arguments.model_name_or_path is None:
        with torch.device("meta"):
            model, processor = load_model(model_arguments, data, texts, teacher_size, args.protocol)
    else:
        config = read_config(model_arguments)
        changes = validator_changes(model_arguments, args.protocol)
        with torch.device("meta"):
            validator = build_validator(model_arguments.validator, config, changes)
            model = IDE3DForConditionalGenerationWithGeometry(config, validator, teacher_size)
        model.to(getattr(torch, model_arguments.dtype))
        if model_arguments.attention == "eager":  # the others take the same memory
            model.set_attn_implementation("eager")
        if data.source == "rooms":
            processor = IDE3DProcessor.from_pretrained(model_arguments.model_name_or_path)
    if data.source == "rooms":
        batch = IDE3DDataCollator(processor, teacher, protocol=args.protocol)(
            samples[: args.per_device_train_batch_size]
        )
    else:
        batch = plan_batch(model.config, model_arguments, data, args, teacher_size)
    placement = Placement(model_arguments.planned_processes, model_arguments.planned_sharding)
    return estimate_step(adapt(model, model_arguments), batch, args, placement)


def find_grid(arguments: ModelArguments, data: DataArguments) -> TokenGrid:
    """Token grid of the nano model or of the checkpoint."""
    if arguments.model_name_or_path is None:
        return TokenGrid(data.image_size, arguments.patch_size, arguments.spatial_pool_stride)
    known = IDE3DProcessor.from_pretrained(arguments.model_name_or_path)
    return TokenGrid(known.image_size, known.patch_size, known.spatial_pool_stride)


def list_texts(samples: list[dict]) -> list[str]:
    """Questions and answers of rooms or samples, which a nano model gets its words from."""
    return [
        text for sample in samples for entry in sample["questions"] for text in (entry["question"], entry["answer"])
    ]


def train(
    model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments
) -> tuple[IDE3DTrainer, IDE3DProcessor]:
    """Build everything, train (or resume), and return the trainer and the processor."""
    set_seed(args.seed)
    check_weights(model_arguments, args)
    check_source(model_arguments, data)
    if data.source == "benchmarks":
        return train_on_benchmarks(model_arguments, data, args)
    teacher = build_teacher(model_arguments, args)
    grid = find_grid(model_arguments, data)
    with args.main_process_first(desc="drawing rooms"):
        rooms = load_decoded("train", data.num_rooms, data)
        validation = load_decoded("validation", data.num_validation_rooms, data)
    samples = build_samples(rooms, data, grid, training=True)
    validation = build_samples(validation, data, grid, training=False)
    model, processor = load_model(
        model_arguments,
        data,
        list_texts(rooms if data.lessons else samples),
        teacher.feature_size if teacher else None,
        args.protocol,
    )
    model = adapt(model, model_arguments)
    make_collator, make_trainer = choose_trainer(data)
    collator = make_collator(processor, teacher=teacher, protocol=args.protocol)
    trainer = make_trainer(
        model,
        args,
        train_dataset=samples,
        eval_dataset=validation,
        data_collator=collator,
        processing_class=processor,
    )
    checkpoint = find_checkpoint(args)
    if not checkpoint:
        take_lessons(model, collator, rooms, samples, data, args, make_trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, processor


def train_on_benchmarks(
    model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments
) -> tuple[IDE3DTrainer, IDE3DProcessor]:
    """Train a checkpoint on benchmarks in the public layout (or resume)."""
    teacher = build_teacher(model_arguments, args)
    is_stored = model_arguments.teacher == "stored"
    samples, validation = build_benchmarks(data, args, find_grid(model_arguments, data), is_stored)
    teacher_size = teacher.feature_size if teacher else None
    if is_stored:
        teacher_size = samples[0]["teacher_features"].shape[-1]
    model, processor = load_model(model_arguments, data, [], teacher_size, args.protocol)
    trainer = IDE3DTrainer(
        adapt(model, model_arguments),
        args,
        train_dataset=samples,
        eval_dataset=validation,
        data_collator=IDE3DDataCollator(processor, teacher=teacher, protocol=args.protocol),
        processing_class=processor,
    )
    trainer.train(resume_from_checkpoint=find_checkpoint(args))
    return trainer, processor


def find_checkpoint(args: IDE3DTrainingArguments) -> str | None:
    """The last checkpoint of the output folder."""
    checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    if checkpoint:
        logger.info("Resuming from %s", checkpoint)
    return checkpoint


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
    if any(word.startswith(("--dry-run", "--dry_run")) for word in words):
        words = [*words, "--use_cpu", "True"]  # where bfloat16 is not refused for want of a GPU
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
    if model_arguments.dry_run:
        logger.info("%s\n%s", sys.argv[1], dry_run(model_arguments, data, args).as_text())
        return
    trainer, processor = train(model_arguments, data, args)
    if trainer.eval_dataset is not None:
        logger.info("Validation: %s", trainer.evaluate())
    export(
        trainer, processor, STORED_TEACHER if model_arguments.teacher == "stored" else trainer.data_collator.teacher
    )


if __name__ == "__main__":
    main()
