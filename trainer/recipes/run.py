"""Run a recipe: build everything, train or resume, evaluate, and export the inference model."""

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from trainer.data_collator import IDE3DDataCollator
from trainer.export import export_inference_model
from trainer.ide3d_trainer import IDE3DTrainer
from trainer.loop.adapters import merge_adapters
from trainer.loop.chat_stream import ChatStream, StreamCollator
from trainer.loop.checkpoints import get_last_checkpoint
from trainer.model_card import TeacherFacts, create_model_card, list_loss_terms
from trainer.processes import leave_processes
from trainer.recipes.arguments import (
    DataArguments,
    ModelArguments,
    build_parser,
    check_source,
    check_weights,
    read_recipe,
)
from trainer.recipes.box_tokens import find_box_tokens
from trainer.recipes.data import (
    build_benchmarks,
    build_chats,
    build_samples,
    list_texts,
    load_decoded,
    load_training_rooms,
)
from trainer.recipes.idle import warn_of_idle
from trainer.recipes.lessons import choose_trainer, list_box_texts, take_lessons
from trainer.recipes.models import adapt, build_pseudo_geometry, build_teacher, find_grid, load_model, load_processor
from trainer.recipes.plan import dry_run
from trainer.recipes.word_start import start_from_words
from trainer.teachers import ConfidenceRule, Teacher
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = ["export_run", "main", "run_recipe", "train"]

logger = logging.getLogger(__name__)

STORED_TEACHER = TeacherFacts(name="facebook/VGGT-1B, as vggt_sliced.npy", licence="cc-by-nc-4.0")
SHARDED_WEIGHTS = "weights"  # folder in the output folder that split weights are gathered in before the export


def train(
    model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments
) -> tuple[IDE3DTrainer, IDE3DProcessor]:
    """Build everything, train (or resume), and return the trainer and the processor."""
    set_seed(args.seed)
    check_weights(model_arguments, args)
    check_source(model_arguments, data)
    warn_of_idle(model_arguments, data)
    if data.source != "rooms":
        return _train_on_files(model_arguments, data, args)
    teacher = build_teacher(model_arguments, args)
    grid = find_grid(model_arguments, data)
    with args.main_process_first(desc="drawing rooms"):
        rooms = load_training_rooms(data)
        validation = load_decoded("validation", data.num_validation_rooms, data)
    samples = build_samples(rooms, data, grid, training=True)
    validation = build_samples(validation, data, grid, training=False)
    model, processor = load_model(
        model_arguments,
        data,
        [*list_texts(rooms if data.lessons else samples), *list_box_texts(rooms, data)],
        teacher.feature_size if teacher else None,
        args.protocol,
    )
    if model_arguments.language_model is not None and data.word_rooms:
        share = start_from_words(model, processor, rooms[: data.word_rooms])
        logger.info("The projector starts from words, which explain %.1f %% of its tokens.", 100 * share)
    model = adapt(model, model_arguments, find_box_tokens(processor.tokenizer, data.box_numbers))
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
    checkpoint = _find_checkpoint(args)
    if not checkpoint:
        take_lessons(model, collator, rooms, samples, data, args, make_trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, processor


def _train_on_files(
    model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments
) -> tuple[IDE3DTrainer, IDE3DProcessor]:
    """Train a checkpoint on benchmarks in the public layout or on chats (or resume)."""
    teacher = build_teacher(model_arguments, args)
    is_stored, pseudo = model_arguments.teacher == "stored", None
    if data.source == "chats":
        with args.main_process_first(desc="reading chats"):
            samples, validation = build_chats(data, args, teacher is not None)
    else:
        pseudo = build_pseudo_geometry(data, args)
        own = load_processor(model_arguments.model_name_or_path)
        samples, validation = build_benchmarks(data, args, own, is_stored, pseudo)
    teacher_size = teacher.feature_size if teacher else None
    if is_stored:
        teacher_size = samples[0]["teacher_features"].shape[-1]
    model, processor = load_model(model_arguments, data, [], teacher_size, args.protocol)
    checkpoint = _find_checkpoint(args)
    options = {
        "teacher": teacher,
        "protocol": args.protocol,
        "confidence_rule": ConfidenceRule(data.confidence_drop_share),
        "pseudo_geometry": pseudo,
    }
    if isinstance(samples, ChatStream):
        collator = StreamCollator(processor, samples, **options)
        _prepare_stream(samples, args, checkpoint)
    else:
        collator = IDE3DDataCollator(processor, **options)
    trainer = IDE3DTrainer(
        adapt(model, model_arguments, find_box_tokens(processor.tokenizer, data.box_numbers)),
        args,
        train_dataset=samples,
        eval_dataset=validation,
        data_collator=collator,
        processing_class=processor,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, processor


def _prepare_stream(stream: ChatStream, args: IDE3DTrainingArguments, checkpoint: str | None) -> None:
    """Prepare a stream for several processes and for a resumed run.

    Every process reads it, and passes over the batches that were trained on without opening their media.
    """
    args.accelerator_config.dispatch_batches = False  # the first process would send the others its tensors
    state = Path(checkpoint, TRAINER_STATE_NAME) if checkpoint else None
    if state is None or not state.is_file() or args.ignore_data_skip:
        return
    with contextlib.suppress(TypeError, ValueError):  # the trainer names a damaged file
        stream.skipped_batches = TrainerState.load_from_json(state).global_step * args.gradient_accumulation_steps


def _find_checkpoint(args: IDE3DTrainingArguments) -> str | None:
    """The checkpoint that the recipe names, or the last one of the output folder."""
    checkpoint = args.resume_from_checkpoint or get_last_checkpoint(args.output_dir)
    if checkpoint:
        logger.info("Resuming from %s", checkpoint)
    return checkpoint


def export_run(trainer: IDE3DTrainer, processor: IDE3DProcessor, teacher: Teacher | TeacherFacts | None) -> Path:
    """Write the folder `export`; all processes call it, the first one writes.

    Args:
        trainer: Trainer after its training.
        processor: Processor of the model.
        teacher: Teacher, or its name and licence, for the model card.

    Returns:
        The folder of the export.

    Raises:
        ValueError: Adapters of a model whose weights are split.
    """
    output = Path(trainer.args.output_dir)
    is_split = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if is_split and trainer._core is not trainer.model:
        raise ValueError(f"Adapters are not merged where weights are split; those of {output} are in its checkpoints.")
    losses = list_loss_terms(trainer)
    if is_split:
        trainer.save_model(str(output / SHARDED_WEIGHTS))
    if not trainer.is_world_process_zero():
        return output / "export"
    if is_split:
        model = IDE3DForConditionalGeneration.from_pretrained(output / SHARDED_WEIGHTS, dtype="auto")
    else:
        model = merge_adapters(trainer.model)
    card = create_model_card(model_name=output.name, losses=losses, teacher=teacher, config=model.config)
    dtype = model.lm_head.weight.dtype  # adapters, and what is trained beside them, may have another
    folder = export_inference_model(model, processor, output / "export", card=card, dtype=dtype)
    logger.info("Exported to %s", folder)
    return folder


def run_recipe(model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments) -> Path:
    """Train by a recipe, evaluate and export; a folder that holds a checkpoint is resumed.

    Args:
        model_arguments: Model, teacher and adapters, as `read_recipe` gives them.
        data: Rooms, benchmarks or chats.
        args: Arguments of the trainer; `output_dir` gets checkpoints and the folder `export`.

    Returns:
        The folder of the export.

    Raises:
        ValueError: Arguments that contradict each other.
        FileNotFoundError: A checkpoint or a file of the data is missing.
    """
    trainer, processor = train(model_arguments, data, args)
    if trainer.eval_dataset is not None:
        logger.info("Validation: %s", trainer.evaluate())
    is_stored = model_arguments.teacher == "stored"
    return export_run(trainer, processor, STORED_TEACHER if is_stored else trainer.data_collator.teacher)


def main(words: Sequence[str] | None = None) -> None:
    """Train by the recipe that the command line names; `--dry-run` says what a step takes."""
    words = sys.argv[1:] if words is None else list(words)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if {"-h", "--help"} & set(words):
        build_parser(usage="%(prog)s RECIPE.yaml [--argument value ...]", description=__doc__).parse_args(["--help"])
    if not words or not words[0].endswith((".yaml", ".yml")):
        sys.exit("Expected a recipe, e.g. python examples/train.py examples/recipes/rooms_nano.yaml [--max_steps 50]")
    try:
        model_arguments, data, args = read_recipe(words[0], words[1:])
    except (OSError, ValueError) as error:
        build_parser().exit(2, f"train.py: {error}\n")
    if model_arguments.dry_run:
        logger.info("%s\n%s", words[0], dry_run(model_arguments, data, args).as_text())
        return
    run_recipe(model_arguments, data, args)
    leave_processes()
