"""Write the demo's report: one page with its scores, losses, rooms and answers, and the picture of the README.

python -m examples.demo.report outputs/demo
"""

import argparse
import json
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path

from .pictures import FOUND, RIGHT, TRUTH, WRONG, Scene, draw_losses, draw_scene, draw_story, to_png

__all__ = ["write_report"]

# Which models were asked in each part of the demo, and what the report calls them.
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
    "folder. Depth by the validator is shown to tell what the visual features hold; it is drawn from the training "
    "model."
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
EXAMPLES = (
    "<p class='quiet'>Below, some of the test rooms to look at. How good the model is, the table says: it counts "
    "every question.</p>"
)
STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f3f5f9; color: #1d2433; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }}
h1 {{ font-size: 27px; margin: 0; letter-spacing: -0.01em; }} h2 {{ font-size: 19px; margin: 0 0 12px; }}
h3 {{ font-size: 15px; margin: 18px 0 6px; }}
section {{ background: #fff; border: 1px solid #e3e7ee; border-radius: 12px; padding: 20px 24px; margin-top: 18px; }}
p {{ margin: 0 0 10px; }} .quiet {{ color: #667085; font-size: 13.5px; }} .scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th {{ text-align: left; font-size: 12.5px; font-weight: 600; color: #667085; vertical-align: bottom; }}
th, td {{ padding: 6px 10px; border-bottom: 1px solid #edf0f5; }} tr:last-child td {{ border-bottom: 0; }}
td.bar {{ min-width: 92px; white-space: nowrap; }}
td.bar {{ background-repeat: no-repeat; background-size: 100% 72%; background-position: 0 50%; }}
td.best {{ font-weight: 700; }} .error {{ color: #667085; font-weight: 400; font-size: 12px; }}
.right {{ color: {RIGHT}; font-weight: 600; }} .wrong {{ color: {WRONG}; font-weight: 600; }}
.verdict {{ white-space: nowrap; }}
.head {{ display: flex; gap: 16px; align-items: center; flex-wrap: wrap; }}
.badge {{ border-radius: 999px; padding: 4px 14px; color: #fff; font-weight: 700; }}
.badge.passed {{ background: {RIGHT}; }} .badge.failed {{ background: {WRONG}; }}
.tiles {{ display: flex; gap: 12px; flex-wrap: wrap; }}
.tile {{ flex: 1 1 150px; background: #f7f8fb; border-radius: 10px; padding: 12px 14px; }}
.tile b {{ display: block; font-size: 21px; }} .tile span {{ color: #667085; font-size: 13px; }}
.columns {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 0 18px; }}
.key {{ display: inline-block; width: 22px; height: 0; border-top: 4px solid; vertical-align: middle; }}
img {{ display: block; width: 100%; height: auto; margin: 8px 0; }}
"""


def percent(share: float) -> str:
    """Share as a whole percentage."""
    return f"{100 * share:.0f}%"


def table(head: list[str], rows: list[str]) -> str:
    """Table of rows that are HTML already; the words of the head are not."""
    cells = "".join(f"<th>{escape(words)}</th>" for words in head)
    return f'<div class="scroll"><table><tr>{cells}</tr>{"".join(rows)}</table></div>'


def bar(share: float | None, is_model: bool = False, is_best: bool = False, count: int | None = None) -> str:
    """Cell with a share from 0 to 1 over a bar of that length, with its standard error if a count is given."""
    if share is None:
        return '<td class="quiet">\u2013</td>'
    if not 0 <= share <= 1:
        raise ValueError(f"An accuracy must be from 0 to 1, got {share!r}. Is it a percentage?")
    colour, length = "#cfe0ff" if is_model else "#e9ecf2", percent(share)
    error = f' <span class="error">\u00b1 {100 * (share * (1 - share) / count) ** 0.5:.0f}</span>' if count else ""
    style = f"background-image: linear-gradient(90deg, {colour} {length}, transparent {length})"
    return f'<td class="bar{" best" if is_best else ""}" style="{style}">{length}{error}</td>'


def score_row(score: dict, models: Mapping[str, str]) -> str:
    """Row of one question type: the models, the baselines, and whether the last model is ahead of these."""
    model = score[list(models)[-1]]
    baselines = {name: score[name] for name in BASELINES if score[name] is not None}
    strongest = max(baselines, key=baselines.__getitem__, default=None)
    best = max([*(score[name] for name in models), *baselines.values()])
    cells = [bar(score[name], is_model=True, is_best=score[name] == best, count=score["n"]) for name in models]
    cells += [bar(score[name], is_best=score[name] == best) for name in BASELINES]
    verdict = '<td class="quiet">no baseline</td>'
    if strongest is not None:
        points = 100 * (model - baselines[strongest])
        noise = 200 * (model * (1 - model) / max(score["n"], 1)) ** 0.5  # two standard errors
        if 0 < points <= noise:
            verdict = f'<td class="verdict quiet">within noise, {points:+.1f} points</td>'
        elif points > 0:
            verdict = f'<td class="verdict right">above all, by {points:.1f} points</td>'
        else:
            words = "level with" if points == 0 else f"{-points:.1f} points below"
            verdict = f'<td class="verdict wrong">{words} {BASELINES[strongest]}</td>'
    return f"<tr><td><b>{escape(score['type'])}</b></td><td>{score['n']}</td>{''.join(cells)}{verdict}</tr>"


def header_section(summary: dict) -> str:
    """Title, pass or fail, each check, and how the answers came about."""
    passed, checks = bool(summary["passed"]), summary["checks"]
    good = sum(bool(check["passed"]) for check in checks)
    badge = f'<span class="badge {"passed" if passed else "failed"}">{"PASSED" if passed else "FAILED"}</span>'
    rows = []
    for check in checks:
        mark, name = ("\u2713 passed", "right") if check["passed"] else ("\u2717 failed", "wrong")
        rows.append(
            f'<tr><td class="{name}" style="white-space: nowrap">{mark}</td><td>{escape(str(check["name"]))}</td>'
            f'<td class="quiet">{escape(str(check["detail"]))}</td></tr>'
        )
    return (
        f'<section><div class="head"><h1>3D-IDE demo</h1>{badge}<span class="quiet">{good} of {len(checks)} checks '
        f"passed</span></div><p style='margin-top: 12px'>{HOW}</p>{table(['', 'check', ''], rows)}</section>"
    )


def grounding_row(grounding: dict, models: Mapping[str, str]) -> str:
    """Row of the requests to find an object: the models beside chance."""
    difference = 100 * (grounding[list(models)[-1]] - grounding["chance"])
    name, words = ("right", "above") if difference > 0 else ("wrong", "not above")
    cells = [bar(grounding[model], is_model=True, count=grounding["n"]) for model in models]
    return (
        f"<tr><td><b>finds the object</b></td><td>{grounding['n']}</td>{''.join(cells)}{bar(grounding['chance'])}"
        f'<td class="verdict {name}">{words} chance, {difference:+.1f} points</td></tr>'
    )


def scores_section(part: str, summary: dict) -> str:
    """Accuracy of a part's models beside the baselines, grounding beside chance, depth beside a constant."""
    models, (title, words) = PARTS[part], TITLES[part]
    found = summary[part]
    rows = [score_row(score, models) for score in found["scores"]]
    names = ["question type", "questions", *models.values(), *BASELINES.values(), "verdict"]
    heads = ["task", "requests", *models.values(), "chance", "verdict"]
    more = ""
    if part == "fine_tuned":
        mean, depth = found["mean"], summary["depth"]
        tiles = [
            (
                f"{percent(mean['before'])} \u2192 {percent(mean['after'])}",
                "mean over question types, before and after",
            ),
            (
                f"{100 * mean['gain']:+.1f} \u00b1 {100 * mean['standard_error']:.1f}",
                "points gained, with the standard error",
            ),
            (f"{depth['abs_rel']:.3f}", "depth error AbsRel of the validator, after; before, there was none"),
            (f"{depth['abs_rel_constant']:.3f}", "AbsRel of one constant depth a pixel"),
            (percent(depth["delta_1.25"]), "of pixels within a factor of 1.25"),
        ]
        more = tile_row(tiles)
    return (
        f"<section><h2>{title}</h2><p class='quiet'>{words} Share of right answers; the best of a row is bold, \u00b1 "
        "is one standard error. The baselines see no pixels: they give the most frequent answer, read the words of "
        "the question, or use how high in frame 1 the object stands.</p>"
        f"{table(names, rows)}<h3>Grounding: which region do the words mean?</h3>"
        f"{table(heads, [grounding_row(found['grounding'], models)])}{more}{EXAMPLES}</section>"
    )


def tile_row(tiles: list[tuple[str, str]]) -> str:
    """Large figures with what they mean below."""
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span></div>' for value, words in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def facts(pairs: list[tuple[str, object]]) -> str:
    """Named values on one quiet line."""
    words = (f"{key.replace('_', ' ')}: {f'{v:.3g}' if isinstance(v, float) else v}" for key, v in pairs)
    return f'<p class="quiet">{escape("; ".join(words))}</p>' if pairs else ""


def losses_section(history: list[dict]) -> str:
    """Curves of all logged components."""
    return (
        "<section><h2>Training losses</h2><p class='quiet'>By step; the thin line is what was logged, the thick one a "
        "running mean, whose last value stands beside the name.</p>"
        f'<img alt="Loss curves" src="{to_png(draw_losses(history))}"></section>'
    )


def scene_section(scene: Scene) -> str:
    """One room: frames, regions, depths, questions and answers."""
    truth, has_before = scene.facts, "before" in scene.facts
    rows = []
    for answer in truth["answers"]:
        mark, name = ("\u2713", "right") if answer["is_right"] else ("\u2717", "wrong")
        earlier = f"<td>{escape(answer.get('before', ''))}</td>" if has_before else ""
        rows.append(
            f"<tr><td>{escape(answer['type'])}</td><td>{escape(answer['question'])}</td>{earlier}"
            f'<td class="{name}">{mark} {escape(answer["answer"])}</td><td>{escape(answer["truth"])}</td></tr>'
        )
    mark, name = ("\u2713 right", "right") if truth["is_right"] else ("\u2717 wrong", "wrong")
    earlier = f"before fine-tuning {escape(truth['before'])}, now " if has_before else ""
    columns = ["type", "question", *(["before", "after"] if has_before else ["answer"]), "truth"]
    return (
        f"<section><h2>Room {escape(truth['scene_id'])}</h2><p>\u201c{escape(truth['request'])}\u201d \u2192 found "
        f'{earlier}<b>{escape(truth["found"])}</b>, truth {escape(truth["truth"])} <span class="{name}">{mark}</span>'
        f'<br><span class="quiet"><span class="key" style="color: {FOUND}"></span> found by the model &nbsp; '
        f'<span class="key" style="color: {TRUTH}"></span> true region &nbsp; both where they agree</span></p>'
        f'<img alt="Frames with the found and the true region" src="{to_png(draw_scene(scene))}">'
        f"{table(columns, rows)}</section>"
    )


def run_section(summary: dict) -> str:
    """Seconds per stage, parameter counts, what the rooms were."""
    seconds, parameters = summary["seconds"], summary["parameters"]
    total = sum(seconds.values()) or 1.0
    rows = []
    for stage, value in seconds.items():
        length = percent(value / total)
        style = f"background-image: linear-gradient(90deg, #cfe0ff {length}, transparent {length})"
        rows.append(f'<tr><td>{escape(stage)}</td><td class="bar" style="{style}">{value:.1f} s</td></tr>')
    rows.append(f"<tr><td><b>all</b></td><td><b>{sum(seconds.values()):.0f} s</b></td></tr>")
    tiles = [
        (f"{parameters['training']:,}", "parameters in training"),
        (f"{parameters['export']:,}", "parameters in the export"),
        (f"{parameters['training'] - parameters['export']:,}", "parameters left behind: validator, projector"),
    ]
    rooms = [(key, value) for key, value in summary.get("rooms", {}).items() if not isinstance(value, (dict, list))]
    return (
        f'<section><h2>The run</h2>{tile_row(tiles)}<div class="columns"><div><h3>Seconds per stage</h3>'
        f"{table(['stage', 'time'], rows)}</div><div><h3>Rooms</h3>{facts(rooms)}</div></div></section>"
    )


def load_json(file: Path) -> object:
    """Content of a JSON file.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}. Run the demo again.") from error


def check_summary(summary: dict) -> None:
    """Stop if the summary misses an entry.

    Raises:
        ValueError: It does.
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
        raise ValueError(f"summary.json misses {', '.join(missing)}. Run the demo again.")


def write_report(folder: Path) -> Path:
    """Write `report.html` and `picture.png` from what the demo left in a folder.

    Args:
        folder: Holds summary.json, log_history.json, and scenes/shipped and scenes/fine_tuned with <name>.json and
            <name>.npz each.

    Returns:
        The page; it needs no other file and no network.

    Raises:
        FileNotFoundError: The folder misses a file.
        ValueError: A file is damaged or misses an entry.
    """
    folder = Path(folder)
    files = {part: sorted((folder / "scenes" / part).glob("*.json")) for part in PARTS}
    missing = [name for name in ("summary.json", "log_history.json") if not (folder / name).is_file()]
    missing += [f"scenes/{part}/*.json" for part in PARTS if not files[part]]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}. It must be a folder that `python -m examples.demo` wrote."
        )
    summary, history = load_json(folder / "summary.json"), load_json(folder / "log_history.json")
    check_summary(summary)
    scenes = {part: [Scene.load(file) for file in files[part]] for part in PARTS}
    tuned = scenes["fine_tuned"]
    if any(scene.predicted_depth is None for scene in tuned):
        raise ValueError(f"{folder / 'scenes' / 'fine_tuned'} has arrays without predicted_depth. Run the demo again.")
    story = next((scene for scene in tuned if scene.facts["is_right"] and scene.found_mask.any()), tuned[0])
    sections = [header_section(summary)]
    for part in PARTS:
        sections += [scores_section(part, summary), *map(scene_section, scenes[part])]
    sections += [losses_section(history), run_section(summary)]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>3D-IDE demo</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )
    draw_story(story, folder / "picture.png")
    report = folder / "report.html"
    report.write_text(page, encoding="utf-8")
    return report


def main() -> None:
    """Parse the command line, write the report, say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what the demo wrote, e.g. outputs/demo")
    try:
        report = write_report(parser.parse_args().folder)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{report}\n")


if __name__ == "__main__":
    main()
