"""The shipped nano model asked by a stranger who sees RGB only, then fine-tuned on rooms of another style.

    make demo          (or: python -m examples.demo [--output_dir outputs/demo] [--max_steps N] ...)

1. A process that cannot import this repository loads the model folder, gets videos of rooms, and answers questions in
   words and finds objects that are described.
2. The model is fine-tuned by recipes/rooms_other_style.yaml with all losses and exported; the stranger answers the
   same questions about unseen rooms of that style before and after.

Leaves `report.html`, `summary.json` and `export/` in the output folder, and exits non-zero if a check fails (see
`compare`). Interrupted, it goes on from its last checkpoint.
"""

import json
import logging
import math
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import EvalResult, ModelCard
from tqdm import tqdm

from modeling_ide3d.auxiliary.modeling_ide3d_geometry import GEOMETRY_PREFIXES
from processing import IDE3DProcessor
from processing.rooms import load_rooms
from processing.rooms.questions.baselines import Baselines
from processing.token_grid import TokenGrid
from trainer import IDE3DTrainingArguments, export_inference_model
from trainer.evaluation.rooms import BASELINES
from trainer.model_card import create_model_card, list_loss_terms
from trainer.recipes import DataArguments, ModelArguments, read_recipe, room_options, train

from .report import write_report
from .tasks import mark_answers, mean_gain, score_grounding, score_table, write_scenes, write_tasks

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent / "recipes" / "rooms_other_style.yaml"
CHECKPOINT = HERE.parent / "checkpoints" / "ide3d-nano-rooms"
NUM_TEST_ROOMS = 100
NUM_BASELINE_ROOMS = 400
# Where the model has to be ahead of the most frequent answer, of what the words alone give and of what the height in
# the picture gives, as shipped on rooms of its own style and fine-tuned on rooms of the other.
MUST_BE_AHEAD = ("existence", "colour", "direction", "closer", "position")
NUM_STANDARD_ERRORS = 2.0  # a smaller lead, or gain, is noise

logger = logging.getLogger("demo")


@contextmanager
def stage(name: str, seconds: dict[str, float]):
    """Time a part of the demo."""
    logger.info("--- %s", name)
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)


@torch.inference_mode()
def measure_depth(model, processor, rooms, train_rooms) -> tuple[dict[str, float], list[np.ndarray]]:
    """Depth errors of the validator on unseen rooms, beside the best constant of each pixel."""
    model.eval()
    errors = {"abs_rel": [], "abs_rel_constant": [], "delta_1.25": []}
    true = lambda room: np.stack([np.asarray(image) for image in room["depth"]])  # noqa: E731
    typical = np.median(np.concatenate([true(room) for room in train_rooms]), axis=0)
    predictions = []
    for room in tqdm(rooms, desc="Depth", unit="room"):
        frames = np.stack([np.asarray(image) for image in room["frames"]])
        pixels = processor.video_processor([frames], do_sample_frames=False, return_tensors="pt")
        predicted = model.predict_depth(pixels["pixel_values_videos"]).depth[0].numpy()
        stride = frames.shape[1] // predicted.shape[1]
        depth = true(room)[:, stride // 2 :: stride, stride // 2 :: stride]
        constant = typical[stride // 2 :: stride, stride // 2 :: stride]
        errors["abs_rel"].append((np.abs(predicted - depth) / depth).mean())
        errors["abs_rel_constant"].append((np.abs(constant - depth) / depth).mean())
        errors["delta_1.25"].append((np.maximum(predicted / depth, depth / predicted) < 1.25).mean())
        predictions.append(predicted)
    return {name: round(float(np.mean(values)), 4) for name, values in errors.items()}, predictions


def ask_stranger(model: Path, inputs: Path, answers: Path) -> list[dict]:
    """Answers of a separate, isolated process in an empty folder."""
    nowhere = answers.parent / "nowhere"
    shutil.rmtree(nowhere, ignore_errors=True)
    nowhere.mkdir()
    script = nowhere / "stranger.py"
    shutil.copy(HERE / "stranger.py", script)
    paths = [str(path.resolve()) for path in (model, inputs, answers)]
    subprocess.run([sys.executable, "-I", script.name, *paths], cwd=nowhere, check=True)
    shutil.rmtree(nowhere)
    return [json.loads(line) for line in answers.read_text().splitlines()]


def is_ahead(share: float, best: float, count: int) -> bool:
    """Whether a share of `count` answers, taken as independent, leads by two standard errors."""
    return share - best > NUM_STANDARD_ERRORS * math.sqrt(share * (1 - share) / count)


def compare(shipped: dict, tuned: dict, depth: dict[str, float]) -> list[dict]:
    """What has to hold for the demo to pass.

    - For each type of `MUST_BE_AHEAD`, the model leads the best of its baselines by two standard errors,
      and finding objects leads chance: as shipped, and after fine-tuning on rooms of the other style.
    - Fine-tuning raises the mean accuracy over types by two standard errors.
    - The validator's depth beats the best constant of each pixel.
    """
    checks = []
    for words, part, name in (("as shipped", shipped, "model"), ("after fine-tuning", tuned, "after")):
        by_type = {entry["type"]: entry for entry in part["scores"]}
        for kind in MUST_BE_AHEAD:
            passed, detail = False, "no such question was asked"
            if kind in by_type:
                entry = by_type[kind]
                best = max(entry[baseline] for baseline in BASELINES if entry[baseline] is not None)
                passed = is_ahead(entry[name], best, entry["n"])
                detail = f"{100 * entry[name]:.1f} % against {100 * best:.1f} % ({entry['n']} questions)"
            checks.append(
                {"name": f"{words}, {kind} is ahead of who does not look", "passed": passed, "detail": detail}
            )
        found = part["grounding"]
        passed = is_ahead(found[name], found["chance"], found["n"])
        detail = f"{100 * found[name]:.1f} % against {100 * found['chance']:.1f} % ({found['n']} requests)"
        checks.append({"name": f"{words}, finding objects beats chance", "passed": passed, "detail": detail})
    mean = tuned["mean"]
    gained = mean["gain"] > NUM_STANDARD_ERRORS * mean["standard_error"]
    detail = f"mean over types {100 * mean['before']:.1f} % before, {100 * mean['after']:.1f} % after, standard error "
    detail += f"{100 * mean['standard_error']:.1f} points"
    checks.append({"name": "fine-tuning helps", "passed": gained, "detail": detail})
    detail = f"AbsRel {depth['abs_rel']:.3f} against {depth['abs_rel_constant']:.3f}"
    passed = depth["abs_rel"] < depth["abs_rel_constant"]
    checks.append({"name": "validator beats constant depth", "passed": passed, "detail": detail})
    return checks


def make_card(trainer, processor, data: DataArguments):
    """Model card with the facts of this run."""
    return create_model_card(
        model_name="3D-IDE nano rooms, fine-tuned (demo)",
        model_id="outputs/demo/export",
        config=trainer.model.config,
        num_frames=processor.video_processor.num_frames,
        license="apache-2.0",
        language="en",
        training_data=f"The nano model of this repository, fine-tuned on {data.num_rooms} procedural rooms of the "
        f"style {data.room_style!r} ({data.num_frames} frames of {data.image_size} px each), with depth, poses and "
        "questions by templates.",
        losses=list_loss_terms(trainer),
        teacher=trainer.data_collator.teacher,
        limits=["Trained on rendered rooms: it shows the path, it does not know real homes."],
    )


def add_scores(export: Path, scores: list[dict]) -> None:
    """Write the measured scores into the card of the export."""
    card = ModelCard.load(export / "README.md")
    card.data.eval_results = [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type="rooms",
            dataset_name="procedural rooms, test",
            metric_type="accuracy",
            metric_name=f"{entry['type']} accuracy",
            metric_value=round(entry["after"], 4),
        )
        for entry in scores
    ]
    card.save(export / "README.md")


def show_shipped(checkpoint: Path, grid: TokenGrid, data: DataArguments, output: Path, seconds: dict) -> dict:
    """Part 1: the stranger asks the shipped model about rooms of the style it was trained on."""
    options = room_options(replace(data, room_style="plain"))
    with stage("rooms of the model's style", seconds):
        rooms = load_rooms("test", NUM_TEST_ROOMS, **options)
        table = Baselines(load_rooms("train", NUM_BASELINE_ROOMS, **options)).score(rooms)
        tasks = write_tasks(rooms, grid, output / "inputs" / "shipped")
    with stage("answers of the shipped model", seconds):
        answers = ask_stranger(checkpoint, output / "inputs" / "shipped", output / "answers_shipped.jsonl")
    write_scenes(tasks, answers, output / "scenes" / "shipped")
    hits = {"model": mark_answers(tasks, answers)}
    return {"scores": score_table(hits, table), "grounding": score_grounding(tasks, hits)}


def fine_tune(
    model_arguments: ModelArguments,
    data: DataArguments,
    args: IDE3DTrainingArguments,
    grid: TokenGrid,
    output: Path,
    seconds: dict,
) -> dict:
    """Part 2: answers before, training with all losses, export, answers after."""
    options, inputs = room_options(data), output / "inputs" / "fine_tuned"
    checkpoint, export = Path(model_arguments.model_name_or_path), output / "export"
    with stage("rooms of the other style", seconds):
        train_rooms = load_rooms("train", data.num_rooms, **options)
        load_rooms("validation", data.num_validation_rooms, **options)
        rooms = load_rooms("test", NUM_TEST_ROOMS, **options)
        fitted = train_rooms.select(range(min(NUM_BASELINE_ROOMS, len(train_rooms))))
        table = Baselines(fitted).score(rooms)
        tasks = write_tasks(rooms, grid, inputs)
    with stage("answers before fine-tuning", seconds):
        before = ask_stranger(checkpoint, inputs, output / "answers_before.jsonl")
    with stage("fine-tuning", seconds):
        trainer, processor = train(model_arguments, data, args)
    model, history = trainer.model, trainer.state.log_history
    (output / "log_history.json").write_text(json.dumps(history, indent=1))
    with stage("export", seconds):
        export_inference_model(model, processor, export, card=make_card(trainer, processor, data))
    with stage("answers after fine-tuning", seconds):
        after = ask_stranger(export, inputs, output / "answers_after.jsonl")
    with stage("depth", seconds):
        depth, predictions = measure_depth(model, processor, rooms, fitted.select(range(min(100, len(fitted)))))
    write_scenes(tasks, after, output / "scenes" / "fine_tuned", before=before, depth=predictions)
    hits = {"before": mark_answers(tasks, before), "after": mark_answers(tasks, after)}
    scores = score_table(hits, table)
    add_scores(export, scores)
    kept = (value.numel() for name, value in model.named_parameters() if not name.startswith(GEOMETRY_PREFIXES))
    return {
        "fine_tuned": {
            "scores": scores,
            "mean": mean_gain(hits["before"], hits["after"]),
            "grounding": score_grounding(tasks, hits),
        },
        "depth": depth,
        "parameters": {"training": sum(value.numel() for value in model.parameters()), "export": sum(kept)},
        "steps": trainer.state.global_step,
    }


def run(model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments, output: Path) -> bool:
    """Both parts; returns whether the checks passed."""
    seconds: dict[str, float] = {}
    checkpoint = Path(model_arguments.model_name_or_path)
    processor = IDE3DProcessor.from_pretrained(checkpoint)
    grid = TokenGrid.of(processor)
    shipped = show_shipped(checkpoint, grid, data, output, seconds)
    tuned = fine_tune(model_arguments, data, args, grid, output, seconds)
    checks = compare(shipped, tuned["fine_tuned"], tuned["depth"])
    summary = {
        "passed": all(check["passed"] for check in checks),
        "checks": checks,
        "shipped": shipped,
        **tuned,
        "seconds": seconds,
        "rooms": {
            "style": data.room_style,
            "train": data.num_rooms,
            "test": NUM_TEST_ROOMS,
            "frames": data.num_frames,
            "px": data.image_size,
        },
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=1))
    logger.info("Report: %s", write_report(output))
    for check in checks:
        logger.info("%s %s: %s", "pass" if check["passed"] else "FAIL", check["name"], check["detail"])
    return summary["passed"]


def main() -> None:
    """Read the recipe, run, exit non-zero if a check fails."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    words = sys.argv[1:]
    if "--output_dir" not in words:
        words = ["--output_dir", "outputs/demo", *words]
    # The recipe names the model from the repository's folder; the demo runs from any.
    model_arguments, data, args = read_recipe(RECIPE, ["--model_name_or_path", str(CHECKPOINT), *words])
    if not Path(model_arguments.model_name_or_path, "config.json").is_file():
        sys.exit(f"demo: {model_arguments.model_name_or_path} has no config.json. It must be the folder of an export.")
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    args.output_dir = str(output / "fine_tuning")
    sys.exit(0 if run(model_arguments, data, args, output) else 1)


if __name__ == "__main__":
    main()
