"""Write the demo's report: a page for a browser, and the picture of the README.

python -m examples.demo.report outputs/demo
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from processing.tables import format_percent
from processing.writing import write_text
from trainer.evaluation.pages import (
    Cell,
    Figure,
    Heading,
    Legend,
    Page,
    Section,
    Table,
    Text,
    Tiles,
    embed_figure,
    render_html,
    share_cell,
)

from ..storage import load_json
from .checks import Part
from .losses import plot_losses
from .pictures import FOUND, TRUTH, render_scene
from .scene import ADVICE, Scene
from .story import render_story

__all__ = ["write_report"]

# Models that were asked in each part of the demo, and their names in the report.
PARTS = {"shipped": {"model": "model"}, "fine_tuned": {"before": "before", "after": "after"}}
SUMMARY_KEYS = (*PARTS, "depth", "seconds", "parameters", "checks", "passed")
BASELINES = {
    "majority": "most frequent answer",
    "text": "words alone",
    "mean_row": "image height: middle",
    "bottom_row": "image height: lower edge",
}
HOW = (
    "Every answer and every found object on this page comes from another process, which loaded a model folder and was "
    "given RGB frames, regions to choose from and the words, nothing else. Depth, camera poses and the teacher's "
    "features are used in training only: the validator and the projector that learn from them are no part of a model "
    "folder. Depth by the validator shows what the visual features hold; it comes from the training model."
)
TITLES = {
    "shipped": (
        "1 The model of the repository",
        "Rooms of the kind that it was trained on, none of which it saw.",
    ),
    "fine_tuned": (
        "2 Fine-tuned on rooms of another style",
        "Rooms with other furniture, shades and sizes: the same questions before and after minutes of training on "
        "such rooms with all losses. None of these rooms was in training.",
    ),
}
SCORES = (
    "Share of right answers; the best of a row is bold, \u00b1 is one standard error. The baselines see no pixels: "
    "they give the most frequent answer, read the words of the question, or use how high in frame 1 the object stands."
)
EXAMPLES = "Below, some of the test rooms to look at. How good the model is, the table says: it counts every question."
LOSSES = (
    "Losses by step; the thin line is what was logged, the thick one a running mean, whose last value stands beside "
    "the name."
)


def percent(share: float) -> str:
    """Return a share as a whole percentage."""
    return f"{format_percent(share, 0)}%"


def judge_lead(score: Mapping, model: float) -> Cell:
    """Return whether a model is ahead of its baselines, and by how much."""
    baselines = {name: score[name] for name in BASELINES if score[name] is not None}
    if not baselines:
        return Cell("no baseline", "quiet")
    strongest = max(baselines, key=baselines.__getitem__)
    points = 100 * (model - baselines[strongest])
    noise = 200 * (model * (1 - model) / max(score["n"], 1)) ** 0.5  # two standard errors
    if 0 < points <= noise:
        return Cell(f"within noise, {points:+.1f} points", "quiet")
    if points > 0:
        return Cell(f"above all, by {points:.1f} points", "right")
    words = "level with" if points == 0 else f"{-points:.1f} points below"
    return Cell(f"{words} {BASELINES[strongest]}", "wrong")


def score_row(score: Mapping, models: Mapping[str, str]) -> list[str | Cell]:
    """Return the row of one question type: models, baselines, and the last model's lead."""
    best = max(score[name] for name in (*models, *BASELINES) if score[name] is not None)
    cells = [share_cell(score[name], is_main=True, is_strong=score[name] == best, count=score["n"]) for name in models]
    cells += [share_cell(score[name], is_strong=score[name] == best) for name in BASELINES]
    verdict = judge_lead(score, score[list(models)[-1]])
    return [Cell(score["type"], is_strong=True), str(score["n"]), *cells, verdict]


def grounding_row(grounding: Mapping[str, float], models: Mapping[str, str]) -> list[str | Cell]:
    """Return the row of the requests to find an object: the models beside chance."""
    points = 100 * (grounding[list(models)[-1]] - grounding["chance"])
    tone, words = ("right", "above") if points > 0 else ("wrong", "not above")
    cells = [share_cell(grounding[model], is_main=True, count=grounding["n"]) for model in models]
    cells += [share_cell(grounding["chance"]), Cell(f"{words} chance, {points:+.1f} points", tone)]
    return [Cell("finds the object", is_strong=True), str(grounding["n"]), *cells]


def mark(is_right: bool, words: str) -> Cell:
    """Return words with a mark and the colour of right or wrong."""
    return Cell(f"\u2713 {words}", "right") if is_right else Cell(f"\u2717 {words}", "wrong")


def build_page(summary: Mapping, sections: Sequence[Section]) -> Page:
    """Return the page, with its verdict and every check before the sections."""
    checks = summary["checks"]
    good = sum(bool(check["passed"]) for check in checks)
    rows = []
    for check in checks:
        verdict = mark(check["passed"], "passed" if check["passed"] else "failed")
        rows.append([verdict, check["name"], Cell(check["detail"], "quiet")])
    return Page(
        "3D-IDE demo",
        sections,
        subtitle=f"{good} of {len(checks)} checks passed",
        badge=("PASSED", "right") if summary["passed"] else ("FAILED", "wrong"),
        introduction=[Text(HOW), Table(["", "check", ""], rows)],
    )


def scores_section(part: str, found: Part, depth: Mapping[str, float]) -> Section:
    """Return a part's answers beside the baselines, grounding beside chance, depth beside a constant."""
    models, (title, words) = PARTS[part], TITLES[part]
    scores = Table(
        ["question type", "questions", *models.values(), *BASELINES.values(), "verdict"],
        [score_row(score, models) for score in found["scores"]],
    )
    grounding = Table(
        ["task", "requests", *models.values(), "chance", "verdict"], [grounding_row(found["grounding"], models)]
    )
    blocks = [Text(f"{words} {SCORES}", "quiet"), scores]
    blocks += [Heading("Grounding: which region do the words mean?"), grounding]
    if "mean" in found:
        blocks.append(Tiles(gain_tiles(found["mean"], depth)))
    return Section(title, [*blocks, Text(EXAMPLES, "quiet")])


def gain_tiles(mean: Mapping[str, float], depth: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return large figures of fine-tuning: accuracy, gain and depth."""
    gain = f"{100 * mean['gain']:+.1f} \u00b1 {100 * mean['standard_error']:.1f}"
    both = f"{percent(mean['before'])} \u2192 {percent(mean['after'])}"
    return [
        (both, "mean over question types, before and after"),
        (gain, "points gained, with the standard error"),
        (f"{depth['abs_rel']:.3f}", "depth error AbsRel of the validator, after; before, there was none"),
        (f"{depth['abs_rel_constant']:.3f}", "AbsRel of one constant depth a pixel"),
        (percent(depth["delta_1.25"]), "of pixels within a factor of 1.25"),
    ]


def scene_section(scene: Scene) -> Section:
    """Return one room: frames, regions, depths, questions and answers."""
    facts, has_before = scene.facts, "before" in scene.facts
    rows = []
    for answer in facts["answers"]:
        earlier = [answer.get("before", "")] if has_before else []
        said = mark(answer["is_right"], answer["answer"])
        rows.append([answer["type"], answer["question"], *earlier, said, answer["truth"]])
    columns = ["type", "question", *(["before", "after"] if has_before else ["answer"]), "truth"]
    earlier = f"before fine-tuning {facts['before']}, now " if has_before else ""
    words = [
        f"\u201c{facts['request']}\u201d \u2192 found {earlier}",
        Cell(facts["found"], is_strong=True),
        f", truth {facts['truth']} ",
        mark(facts["is_right"], "right" if facts["is_right"] else "wrong"),
    ]
    legend = Legend([(FOUND, "found by the model"), (TRUTH, "true region; both where they agree")])
    picture = Figure(embed_figure(render_scene(scene)), "Frames with the found and the true region")
    return Section(f"Room {facts['scene_id']}", [Text(words), legend, picture, Table(columns, rows)])


def run_section(summary: Mapping) -> Section:
    """Return seconds by stage, parameter counts, and what the rooms were."""
    seconds, parameters = summary["seconds"], summary["parameters"]
    total = sum(seconds.values())
    rows = [
        [name, Cell(f"{value:.1f} s", bar=value / (total or 1.0), is_main=True)] for name, value in seconds.items()
    ]
    rows.append([Cell("all", is_strong=True), Cell(f"{total:.0f} s", is_strong=True)])
    tiles = [
        (f"{parameters['training']:,}", "parameters in training"),
        (f"{parameters['export']:,}", "parameters in the export"),
        (f"{parameters['training'] - parameters['export']:,}", "parameters left behind: validator, projector"),
    ]
    blocks = [Tiles(tiles), Heading("Seconds by stage"), Table(["stage", "time"], rows)]
    if rooms := summary.get("rooms"):
        words = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in rooms.items())
        blocks += [Heading("Rooms"), Text(words, "quiet")]
    return Section("The run", blocks)


def check_summary(summary: Mapping) -> None:
    """Check that the summary has all entries.

    Raises:
        ValueError: If it misses one.
    """
    missing = [key for key in SUMMARY_KEYS if key not in summary]
    if not missing:
        for part, models in PARTS.items():
            missing += [f"{part}: {key}" for key in ("scores", "grounding") if key not in summary[part]]
            keys, scores = ("type", "n", *models, *BASELINES), summary[part].get("scores", [])
            missing += sorted({f"{part} scores: {key}" for score in scores for key in keys if key not in score})
            found = summary[part].get("grounding", {})
            missing += [f"{part} grounding: {key}" for key in ("n", *models, "chance") if key not in found]
        mean = summary["fine_tuned"].get("mean", {})
        missing += [f"fine_tuned mean: {k}" for k in ("before", "after", "gain", "standard_error") if k not in mean]
        missing += [f"depth: {k}" for k in ("abs_rel", "abs_rel_constant", "delta_1.25") if k not in summary["depth"]]
        missing += [f"parameters: {key}" for key in ("training", "export") if key not in summary["parameters"]]
    if missing:
        raise ValueError(f"summary.json misses {', '.join(missing)}. {ADVICE}")


def load_scenes(folder: Path) -> dict[str, list[Scene]]:
    """Return the scenes of each part.

    Raises:
        FileNotFoundError: If the folder misses a file.
        ValueError: If a file is damaged or misses an entry.
    """
    files = {part: sorted((folder / "scenes" / part).glob("*.json")) for part in PARTS}
    missing = [name for name in ("summary.json", "log_history.json") if not (folder / name).is_file()]
    missing += [f"scenes/{part}/*.json" for part in PARTS if not files[part]]
    if missing:
        names = ", ".join(missing)
        raise FileNotFoundError(f"{folder} has no {names}. It must be a folder that `python -m examples.demo` wrote.")
    scenes = {part: [Scene.load(file) for file in files[part]] for part in PARTS}
    if any(scene.predicted_depth is None for scene in scenes["fine_tuned"]):
        raise ValueError(f"{folder / 'scenes' / 'fine_tuned'} has arrays without predicted_depth. {ADVICE}")
    return scenes


def choose_story(scenes: Sequence[Scene]) -> Scene:
    """Return the first scene whose object was found, else the first."""
    return next((scene for scene in scenes if scene.facts["is_right"] and scene.found_mask.any()), scenes[0])


def write_report(folder: Path) -> Path:
    """Write `report.html` and `picture.png` from what the demo left in a folder.

    Args:
        folder: Folder with summary.json, log_history.json, and scenes/shipped and scenes/fine_tuned, which hold
            <name>.json and <name>.npz each.

    Returns:
        Path of the page; it needs no other file and no network.

    Raises:
        FileNotFoundError: If the folder misses a file.
        ValueError: If a file is damaged or misses an entry.
    """
    folder = Path(folder)
    scenes = load_scenes(folder)
    summary, history = (load_json(folder / name, ADVICE) for name in ("summary.json", "log_history.json"))
    check_summary(summary)
    sections = []
    for part in PARTS:
        sections += [scores_section(part, summary[part], summary["depth"]), *map(scene_section, scenes[part])]
    losses = Figure(embed_figure(plot_losses(history)), LOSSES)
    sections += [Section("Training losses", [losses]), run_section(summary)]
    render_story(choose_story(scenes["fine_tuned"]), folder / "picture.png")
    path = folder / "report.html"
    write_text(path, render_html(build_page(summary, sections)))
    return path


def main() -> None:
    """Parse the command line, write the report, say where it is."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo.report", description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what the demo wrote, e.g. outputs/demo")
    try:
        report = write_report(parser.parse_args().folder)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{report}\n")


if __name__ == "__main__":
    main()
