"""The whole path in one command: rooms, training with privileged geometry, export, and a stranger who sees RGB only.

    make demo          (or: python examples/demo.py [--output_dir outputs/demo] [--max_steps N] ...)

Leaves `report.html`, `summary.json` and `export/` in the output folder, and exits non-zero if the model does not beat
the baselines. Interrupted, it goes on from its last checkpoint.
"""

import json
import logging
import math
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from demo_report import write_report
from demo_tasks import score_answers, write_tasks
from huggingface_hub import EvalResult, ModelCard
from tqdm import tqdm
from train import DataArguments, ModelArguments, read_recipe, train

from modeling_ide3d.auxiliary.modeling_ide3d_geometry import GEOMETRY_PREFIXES
from processing.regions import TokenGrid
from processing.rooms import load_rooms
from processing.rooms.baselines import Baselines
from trainer import IDE3DTrainingArguments, export_inference_model
from trainer.model_card import create_model_card, list_loss_terms

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "recipes" / "rooms_nano.yaml"
NUM_TEST_ROOMS = 150
NUM_BASELINE_ROOMS = 400
# What the answers to each type of question have to be better than. For distance, the lower edge of what stands on the
# floor says about as much as this model does: that baseline is reported beside the answers, and decides nothing.
WORDS, HEIGHT = ("majority", "text"), ("mean_row", "bottom_row")
MUST_BEAT_BASELINES = {
    "closer": WORDS + HEIGHT,
    "colour": WORDS,
    "direction": WORDS,
    "distance": WORDS,
    "position": WORDS,
}
NUM_STANDARD_ERRORS = 2.0  # a smaller lead is noise

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


def ask_stranger(folder: Path) -> list[dict]:
    """Answers of a separate, isolated process in an empty folder."""
    nowhere = folder / "nowhere"
    shutil.rmtree(nowhere, ignore_errors=True)
    nowhere.mkdir()
    script = nowhere / "stranger.py"
    shutil.copy(HERE / "demo_stranger.py", script)
    paths = [str((folder / name).resolve()) for name in ("export", "inputs", "answers.jsonl")]
    subprocess.run([sys.executable, "-I", script.name, *paths], cwd=nowhere, check=True)
    shutil.rmtree(nowhere)
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def compare(scores: list[dict], depth: dict) -> list[dict]:
    """What has to hold for the demo to pass: a lead of two standard errors, questions taken as independent."""
    checks = []
    for entry in scores:
        if entry["type"] in MUST_BEAT_BASELINES:
            best = max(entry[name] for name in MUST_BEAT_BASELINES[entry["type"]])
            detail = f"{100 * entry['model']:.1f} % against {100 * best:.1f} % ({entry['n']} questions)"
            error = math.sqrt(entry["model"] * (1 - entry["model"]) / entry["n"])
            passed = entry["model"] - best > NUM_STANDARD_ERRORS * error
            checks.append({"name": f"{entry['type']} beats its baselines", "passed": passed})
            checks[-1]["detail"] = detail
    for kind in sorted({*MUST_BEAT_BASELINES} - {entry["type"] for entry in scores}):
        checks.append({"name": f"{kind} beats its baselines", "passed": False, "detail": "no such question was asked"})
    detail = f"AbsRel {depth['abs_rel']:.3f} against {depth['abs_rel_constant']:.3f}"
    checks.append({"name": "validator beats constant depth", "passed": depth["abs_rel"] < depth["abs_rel_constant"]})
    checks[-1]["detail"] = detail
    return checks


def make_card(trainer, processor, data: DataArguments):
    """Model card with the facts of this run."""
    config = trainer.model.config
    return create_model_card(
        model_name="3D-IDE nano rooms (demo)",
        model_id="outputs/demo/export",
        config=config,
        num_frames=processor.video_processor.num_frames,
        license="apache-2.0",
        language="en",
        training_data=f"{data.num_rooms} procedural rooms ({data.num_frames} frames of {data.image_size} px each) of "
        "this repository, with depth, poses and questions by templates.",
        losses=list_loss_terms(trainer),
        teacher=trainer.data_collator.teacher,
        limits=["Trained for minutes on rendered rooms: it shows the path, it does not know real homes."],
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
            metric_value=round(entry["model"], 4),
        )
        for entry in scores
    ]
    card.save(export / "README.md")


def run(model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments, output: Path) -> bool:
    """All stages; returns whether the checks passed."""
    seconds: dict[str, float] = {}
    options = {"seed": data.data_seed_rooms, "image_size": data.image_size, "num_frames": data.num_frames}
    with stage("rooms", seconds):
        train_rooms = load_rooms("train", data.num_rooms, **options)
        load_rooms("validation", data.num_validation_rooms, **options)
        rooms = load_rooms("test", NUM_TEST_ROOMS, **options)
    with stage("training", seconds):
        trainer, processor = train(model_arguments, data, args)
    (output / "log_history.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    model = trainer.model
    with stage("export", seconds):
        export_inference_model(model, processor, output / "export", card=make_card(trainer, processor, data))
    grid = TokenGrid(processor.image_size, processor.patch_size, processor.spatial_pool_stride)
    with stage("questions", seconds):
        tasks = write_tasks(rooms, grid, output / "inputs", data)
    with stage("stranger", seconds):
        answers = ask_stranger(output)
    with stage("baselines", seconds):
        fitted = train_rooms.select(range(min(NUM_BASELINE_ROOMS, len(train_rooms))))
        table = Baselines(fitted).score(rooms)
    with stage("depth", seconds):
        depth, predictions = measure_depth(model, processor, rooms, fitted.select(range(min(100, len(fitted)))))
    scores, grounding = score_answers(tasks, answers, table, predictions, output / "scenes")
    add_scores(output / "export", scores)
    checks = compare(scores, depth)
    summary = {
        "passed": all(check["passed"] for check in checks),
        "checks": checks,
        "scores": scores,
        "grounding": grounding,
        "depth": depth,
        "seconds": seconds,
        "parameters": {
            "training": sum(value.numel() for value in model.parameters()),
            "export": sum(
                value.numel() for name, value in model.named_parameters() if not name.startswith(GEOMETRY_PREFIXES)
            ),
        },
        "rooms": {"train": data.num_rooms, "test": NUM_TEST_ROOMS, "frames": data.num_frames, "px": data.image_size},
        "steps": trainer.state.global_step,
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
    model_arguments, data, args = read_recipe(RECIPE, words)
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    args.output_dir = str(output / "training")
    sys.exit(0 if run(model_arguments, data, args, output) else 1)


if __name__ == "__main__":
    main()
