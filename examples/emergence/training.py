"""Train a run: lessons that all runs share, rooms without questions, questions."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from transformers import set_seed

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.modeling_ide3d_geometry import GEOMETRY_PREFIXES
from processing.rooms import load_rooms
from processing.token_grid import TokenGrid
from processing.writing import write_json
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.nano.build import standardize_regions
from trainer.nano.lessons import without_layers

from ..storage import load_json
from .files import ADVICE, RunFiles, check_settings, describe_lesson, describe_run, save_weights
from .models import build_model, build_processor, build_teacher, study_grid
from .normals import NormalsTrainer
from .questions import sample_flat_questions, sample_questions, say_boxes
from .recipe import Arm, Phase, Study
from .results import PhaseCost
from .rooms import RoomArrays
from .steps import StudyCollator, StudySteps

__all__ = ["labelled_questions", "take_lesson", "train_run"]

NUM_LOGS = 20  # of a phase
READING_ROOMS = 600  # each of their views is seen two or three times
STANDARD_VIEWS, BATCH = 160, 8  # views whose regions the projector is standardised by, and how many at a time
LESSON_SEED = 0
WARMUP_SHARE, MAX_WARMUP = 0.2, 40  # of the steps of a phase


@dataclass(frozen=True)
class Trainee:
    """A model with what its phases need.

    Args:
        study: Study of the run.
        arm: Arm of the run.
        files: Files of the run.
        model: Training model, trained in place.
        collator: Collator of its steps.
        rooms: Training rooms with the arm's target.
    """

    study: Study
    arm: Arm
    files: RunFiles
    model: IDE3DForConditionalGenerationWithGeometry
    collator: StudyCollator
    rooms: RoomArrays


def phase_arguments(phase: Phase, arm: Arm, scale: float, seed: int, output: Path) -> IDE3DTrainingArguments:
    """Return the arguments of a phase.

    Args:
        phase: Phase to train.
        arm: Arm with the weights of its losses.
        scale: Factor of these weights.
        seed: Seed of the phase.
        output: Output folder of the trainer.
    """
    return IDE3DTrainingArguments(
        output_dir=str(output),
        max_steps=phase.steps,
        per_device_train_batch_size=1,  # an item is all samples of a step
        learning_rate=phase.learning_rate * arm.learning_rate,
        vision_learning_rate=phase.vision_learning_rate * arm.learning_rate,
        frozen_parts=[] if phase.vision_learning_rate else ["vision"],
        geometry_learning_rate=(phase.geometry_learning_rate or phase.learning_rate) * arm.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(MAX_WARMUP, int(WARMUP_SHARE * phase.steps)),
        weight_decay=0.05,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        depth_weight=scale * arm.depth,
        cross_view_weight=scale * arm.cross_view,
        distillation_weight=scale * arm.teacher,
        pose_weight=scale * arm.pose,
        scale_weight=scale * arm.scale,
        pair_mode="random",
        pairs_per_frame=1,
        consistency_weight=0.0,
        overlap_weight=0.0,
        grounding_weight=0.0,
        save_strategy="no",
        logging_steps=max(1, phase.steps // NUM_LOGS),
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
    )


def train_phase(
    model: IDE3DForConditionalGenerationWithGeometry,
    collator: StudyCollator,
    steps: StudySteps,
    args: IDE3DTrainingArguments,
    has_layers: bool,
    normals: float = 0.0,
) -> PhaseCost:
    """Train a phase and return its losses and cost.

    Args:
        model: Training model, trained in place.
        collator: Collator of the steps.
        steps: Steps of the phase.
        args: Arguments of the phase.
        has_layers: False takes the layers out of the language model meanwhile, so that words and the teacher's
            features have to be in the visual tokens.
        normals: Weight of the surface normals; 0 leaves them out.
    """
    set_seed(args.seed)
    start = time.perf_counter(), time.process_time()
    with nullcontext() if has_layers else without_layers(model):
        data = {"train_dataset": steps, "data_collator": collator}
        if normals:
            trainer = NormalsTrainer(model, args, normals_weight=normals, **data)
        else:
            trainer = IDE3DTrainer(model, args, **data)
        trainer.train()
    history = [
        {"step": entry["step"], **{name: round(entry[name], 5) for name in entry if name.startswith("loss")}}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return {
        "steps": args.max_steps,
        "seconds": round(time.perf_counter() - start[0], 1),
        "cpu_seconds": round(time.process_time() - start[1], 1),
        "history": history,
    }


def open_pool(study: Study, arm: Arm) -> RoomArrays:
    """Open the training rooms, which the study has stored, with the geometry of an arm."""
    return RoomArrays(Path(study.output_dir) / "rooms" / "train", arm.target, arm.pseudo)


def take_lesson(study: Study) -> Path:
    """Take the lessons that all runs share and return the file of the weights.

    First, name what each visual token shows: it trains tower, projector and words. Then read regions: it trains the
    language model. Heads are no part of the file: they are a seed's.

    Raises:
        ValueError: If the lessons were taken with other settings.
    """
    files = RunFiles(Path(study.output_dir), "", 0)
    path, settings = files.lesson, describe_lesson(study)
    about = path.with_suffix(".json")
    check_settings(about, settings)
    if path.is_file():
        return path
    processor, phase = build_processor(study), study.lesson
    model, rooms = build_model(study, Arm(), LESSON_SEED, processor), open_pool(study, Arm())
    collator = StudyCollator(IDE3DDataCollator(processor, protocol="clean"))
    steps = StudySteps(rooms, [], num_steps=phase.steps, rooms_per_step=phase.rooms, seed=LESSON_SEED)
    args = phase_arguments(phase, Arm(), 0.0, LESSON_SEED, path.parent)
    write_json(about, {"settings": settings})
    train_phase(model, collator, steps, args, has_layers=False)
    if study.reading.steps:
        take_reading(Trainee(study, Arm(), files, model, collator, rooms))
    save_weights(path, {k: v for k, v in model.state_dict().items() if not k.startswith(GEOMETRY_PREFIXES)})
    return path


def take_reading(trainee: Trainee) -> PhaseCost:
    """Take the lesson in reading, see `sample_flat_questions`, from rooms that are spread over the pool."""
    study = trainee.study
    rooms = load_rooms("train", study.num_rooms, image_size=study.image_size, num_frames=study.num_frames)
    chosen = np.random.default_rng(LESSON_SEED).permutation(len(rooms))[:READING_ROOMS]
    samples = sample_flat_questions([rooms[int(index)] for index in chosen], study_grid(study), LESSON_SEED)
    samples = [say_boxes(sample) for sample in samples] if study.say_boxes else samples
    args = phase_arguments(study.reading, trainee.arm, 0.0, LESSON_SEED, trainee.files.output)
    return train_on_questions(trainee, study.reading, samples, args, has_rooms=True)


def train_on_questions(
    trainee: Trainee, phase: Phase, samples: Sequence[dict], args: IDE3DTrainingArguments, has_rooms: bool
) -> PhaseCost:
    """Train a phase with questions.

    Before it, the features of regions are standardised by some of the questions.

    Args:
        trainee: Model and what its phases need.
        phase: Phase with questions.
        samples: Samples of `sample_questions`.
        args: Arguments of the phase.
        has_rooms: Whether there are rooms without questions beside them.
    """
    steps = StudySteps(
        trainee.rooms,
        samples,
        num_steps=phase.steps,
        rooms_per_step=phase.rooms if has_rooms else 0,
        questions_per_step=phase.views,
        seed=args.seed,
        num_words=phase.words,
        max_questions=phase.max_questions,
        answer_jitter=trainee.study.answer_jitter,
    )
    model, views = trainee.model, steps.questions[:STANDARD_VIEWS]
    batches = (trainee.collator.collator(views[start : start + BATCH]) for start in range(0, len(views), BATCH))
    model.eval()
    standardize_regions(model, batches)
    return train_phase(model, trainee.collator, steps, args, has_layers=True)


def labelled_questions(study: Study, arm: str, seed: int) -> tuple[dict, ...]:
    """Return questions of the labelled rooms; those of fewer rooms are among those of more."""
    options = study.num_rooms, study.image_size, study.num_frames, study_grid(study), study.say_boxes
    return sample_labelled(study.rooms_labelled(arm), seed, *options)


@lru_cache(maxsize=1)  # a run needs them twice, and sampling those of all rooms takes minutes
def sample_labelled(
    count: int, seed: int, num_rooms: int, image_size: int, num_frames: int, grid: TokenGrid, has_boxes: bool
) -> tuple[dict, ...]:
    """Sample what `labelled_questions` returns; samples are read-only, because the next caller gets the same ones."""
    order = np.random.default_rng([seed, 7]).permutation(num_rooms)
    rooms = load_rooms("train", num_rooms, image_size=image_size, num_frames=num_frames)
    samples = sample_questions([rooms[int(index)] for index in order[:count]], grid, seed)
    return tuple(say_boxes(sample) if has_boxes else sample for sample in samples)


def train_run(study: Study, name: str, seed: int) -> None:
    """Train an arm with a seed, from the last phase that is done.

    `training.json` is written at the end.

    Raises:
        ValueError: If the folder holds a run with other settings.
    """
    arm, files = study.rows[name], RunFiles(Path(study.output_dir), name, seed)
    settings = describe_run(study, arm)
    begun = files.folder / "begun.json"
    check_settings(begun, settings)
    if files.training.is_file():
        return
    write_json(begun, {"settings": settings})
    processor = build_processor(study)
    model = build_model(study, arm, seed, processor)
    teacher = build_teacher(study, arm) if arm.teacher else None
    collator = StudyCollator(IDE3DDataCollator(processor, teacher, protocol="clean"))
    trainee = Trainee(study, arm, files, model, collator, open_pool(study, arm))
    phases = {}
    if arm.pool and study.pool.steps:
        phases["pool"] = train_pool(trainee)
    else:
        model.load_state_dict(load_file(take_lesson(study)), strict=False)
    args = phase_arguments(study.questions, arm, arm.in_questions, seed + 2, files.folder)
    questions = labelled_questions(study, name, seed)
    phases["questions"] = train_on_questions(trainee, study.questions, questions, args, has_rooms=arm.pool)
    save_weights(files.weights, model.state_dict())
    heads = sum(parameter.numel() for parameter in model.geometry_parameters())
    whole = sum(parameter.numel() for parameter in model.parameters())
    parameters = {"training": whole, "export": whole - heads}
    about = {"row": name, "seed": seed, "settings": settings, "phases": phases, "parameters": parameters}
    write_json(files.training, about, indent=None)


def train_pool(trainee: Trainee) -> PhaseCost:
    """Train the phase without questions, or load what it left before."""
    study, model, seed = trainee.study, trainee.model, trainee.files.seed + 1
    path, phase = trainee.files.pool(study.pool_settings(trainee.arm)), study.pool
    about = path.with_suffix(".json")
    if path.is_file():
        model.load_state_dict(load_file(path), strict=True)
        return load_json(about, ADVICE)
    model.load_state_dict(load_file(take_lesson(study)), strict=False)
    rooms, words = trainee.rooms, phase.words
    steps = StudySteps(rooms, [], num_steps=phase.steps, rooms_per_step=phase.rooms, seed=seed, num_words=words)
    args = phase_arguments(phase, trainee.arm, 1.0, seed, trainee.files.folder)
    normals = trainee.arm.normals
    cost = train_phase(model, trainee.collator, steps, args, has_layers=False, normals=normals)
    write_json(about, cost)
    save_weights(path, model.state_dict())
    return cost
