"""Ship a trained nano model: its export, its scores in the card, and the record of how it was made."""

import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from processing.writing import whole_folder, write_json
from trainer.evaluation.rooms import format_room_table, is_ahead

__all__ = ["ship"]

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "datasets", "safetensors", "numpy", "av")
CURVES = ("loss_language", "loss_mention", "loss_grounding", "loss_depth", "loss_distillation")
SECTION = """
## Scores on rooms it has not seen

{rooms}:

{table}

Percent of the answers that are right: lengths within 15 %, positions within 0.5 m, everything else word for word.
A request counts if the region with the highest score is a true one. Questions refer to objects by words, or point at
a region. Bands are 95 % over rooms; `lead` is over the best baseline, and `~` marks a lead that is not
surely above zero. {named}

`training.json` holds recipes, versions and the log of the training, {steps} steps after its lessons; `training.png`
draws it. It has only ever seen rendered rooms of 64 px.
"""


def read_history(run: Path) -> list[dict]:
    """Read the log of the training from its last checkpoint.

    Raises:
        FileNotFoundError: The run has no checkpoint.
    """
    states = {int(path.parent.name.rpartition("-")[2]): path for path in run.glob("checkpoint-*/trainer_state.json")}
    if not states:
        raise FileNotFoundError(f"{run} has no checkpoint: train the model first.")
    return json.loads(states[max(states)].read_text(encoding="utf-8"))["log_history"]


def read_stages(runs: Sequence[Path], recipes: Sequence[Path]) -> list[dict]:
    """Read recipe and log of each stage of a training.

    Args:
        runs: Output folder of each stage, in order. In place of the first ones may stand the `training.json` of a
            shipped model, whose stages those are.
        recipes: Recipes of the stages; the last ones belong to the folders.

    Raises:
        FileNotFoundError: A run has no checkpoint.
        ValueError: There are more folders than recipes.
    """
    folders = [run for run in runs if not run.is_file()]
    if len(folders) > len(recipes):
        raise ValueError(f"Expected at most {len(recipes)} runs, one a recipe, got {len(folders)}.")
    of_folder = dict(zip(folders, recipes[len(recipes) - len(folders) :], strict=True))
    stages = []
    for run in runs:
        if run in of_folder:
            stages.append({"recipe": of_folder[run].read_text(encoding="utf-8"), "log": read_history(run)})
        else:
            stages += json.loads(run.read_text(encoding="utf-8"))["stages"]
    return stages


def join_histories(stages: Sequence[dict]) -> list[dict]:
    """Return the logs of all stages as one, with steps that go on."""
    joined: list[dict] = []
    for stage in stages:
        before = joined[-1]["step"] if joined else 0
        joined += [{**entry, "step": entry["step"] + before} for entry in stage["log"]]
    return joined


def draw_curves(history: list[dict], path: Path) -> None:
    """Loss terms over the steps as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for name in CURVES:
        points = [(entry["step"], entry[name]) for entry in history if entry.get(name)]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.removeprefix("loss_"))
    axes.set(xlabel="step", ylabel="loss, unweighted", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_card(folder: Path, name: str, evaluation: dict, history: list[dict], tried: str | None = None) -> None:
    """Name, scores and how the model was trained, into the card of the export."""
    card, table = ModelCard.load(folder / "README.md"), evaluation["table"]
    title = next(line.removeprefix("# ") for line in card.text.splitlines() if line.startswith("# "))
    card.text, card.data.model_name = card.text.replace(title, name), name
    rooms = f"{evaluation['num_rooms']} rooms of {evaluation['split']}"
    card.data.license, card.data.language = "apache-2.0", "en"
    card.data.eval_results = [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type="rooms",
            dataset_name=f"procedural rooms, {rooms}",
            metric_type="accuracy",
            metric_name=f"{row['type']} ({row['reference']})",
            metric_value=round(row["model"], 4),
        )
        for row in table
    ]
    below = [f"{row['type']} ({row['reference']})" for row in table if not is_ahead(row)]
    named = f"Not surely above the best baseline: {', '.join(below)}." if below else "All are above every baseline."
    if tried:
        named += f" What was tried: {tried}"
    section = SECTION.format(rooms=rooms, table=format_room_table(table), named=named, steps=history[-1]["step"])
    card.text = card.text.rstrip() + "\n" + section
    card.save(folder / "README.md")


def ship(
    runs: Sequence[Path],
    target: Path,
    evaluation: Path,
    *,
    recipes: Sequence[Path],
    commands: Sequence[str],
    note: str | None = None,
    tried: str | None = None,
) -> None:
    """Replace the shipped folder.

    Args:
        runs: Output folders of the stages of the training, see `read_stages`. The last one's export is shipped.
        target: Folder of the shipped model.
        evaluation: File of what `evaluate_rooms` returned about the export.
        recipes: Recipes of the stages, for the record.
        commands: Commands that make the model again, for the record.
        note: Further facts of how the model was made, such as changes on the way.
        tried: Attempts at the types that are not above their baselines, for the card.

    Raises:
        FileNotFoundError: If the last run has no export, a run no checkpoint, or there is no evaluation.
        FileExistsError: If the target holds something else.
        ValueError: If there are more runs than recipes.
    """
    run = runs[-1]
    if not (run / "export" / "config.json").is_file():
        raise FileNotFoundError(f"{run / 'export'} is no export: train the model first.")
    stages = read_stages(runs, recipes)
    history, scores = join_histories(stages), json.loads(evaluation.read_text())
    with whole_folder(target, is_shipped, refusal="is neither empty nor a shipped model") as unfinished:
        shutil.copytree(run / "export", unfinished, dirs_exist_ok=True)
        write_card(unfinished, target.name, scores, history, tried)
        draw_curves(history, unfinished / "training.png")
        write_json(unfinished / "training.json", training_facts(scores, stages, commands, note))
    size = sum(file.stat().st_size for file in target.iterdir())
    logger.info("%s: %d files, %.1f MB", target, len(list(target.iterdir())), size / 1e6)


def is_shipped(folder: Path) -> bool:
    """Whether a folder is a model that was shipped before."""
    return (folder / "training.json").is_file()


def training_facts(scores: dict, stages: Sequence[dict], commands: Sequence[str], note: str | None) -> dict:
    """Return recipes, versions, scores and logs of the training."""
    here = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=here)
    return {
        "commands": list(commands),
        "commit": commit.stdout.strip() or None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "note": note,
        **{key: scores[key] for key in ("split", "num_rooms", "table")},
        "stages": list(stages),
    }
