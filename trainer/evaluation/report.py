"""A report to read: scores of both protocols with their bands, pictures of right and wrong answers, a model index."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment

from processing.benchmarks import load_scene
from processing.token_grid import TokenGrid
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation.pictures import draw_example
from trainer.evaluation.results import EvaluationSettings
from trainer.evaluation.tasks import EVALUATED_TASKS

__all__ = ["model_index", "score_rows", "write_report"]

EXAMPLES = 4  # right ones, and as many wrong ones
LEFT_OUT = ("scores", "versions", "main_score")

MARKDOWN = """\
# {{ title }}

{{ facts_line }}

## Scores

In percent, with 95 % bands: a bootstrap over the {{ results.num_scenes }} scenes. `{{ results.main_score }}` is the \
score that papers report first. `paper` repeats the original's scoring, `clean` is what it should be; both score the \
same answers, which were made with the `{{ results.protocol }}` prompts.
{% if notes %}
{% for note in notes %}
- {{ note }}
{% endfor %}
{% endif %}

| Score | Samples | clean | band | paper | band |
|---|---|---|---|---|---|
{% for row in rows %}
| {{ row.name }} | {{ row.count }} | {{ row.clean }} | {{ row.clean_band }} | {{ row.paper }} | {{ row.paper_band }} |
{% endfor %}

## Examples
{% for example in examples %}

### {{ example.verdict }}: {{ example.id }}

![{{ example.caption }}]({{ example.picture }})

{% for label, text in example.lines %}
- {{ label }}: {{ text }}
{% endfor %}
{% endfor %}

## Run

| What | Value |
|---|---|
{% for name, value in facts %}
| {{ name }} | {{ value }} |
{% endfor %}

## For the model card

```yaml
{{ index }}```
"""

HTML = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } tr.main { font-weight: 600; }
img { max-width: 100%; } figure { margin: 1.5rem 0; padding: 1rem; border-left: 6px solid #2a7; background: #f7f7f7; }
figure.wrong { border-color: #c43; } pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; }
</style></head><body>
<h1>{{ title }}</h1><p>{{ facts_line }}</p>
<h2>Scores</h2>
<p>In percent, with 95 % bands: a bootstrap over the {{ results.num_scenes }} scenes. <code>paper</code> repeats the
original's scoring, <code>clean</code> is what it should be; both score the same answers, which were made with the
<code>{{ results.protocol }}</code> prompts.</p>
{% for note in notes %}<p>{{ note }}</p>{% endfor %}
<table><tr><th>Score</th><th>Samples</th><th>clean</th><th>band</th><th>paper</th><th>band</th></tr>
{% for row in rows %}<tr{% if row.is_main %} class="main"{% endif %}><td>{{ row.name }}</td>
<td class="n">{{ row.count }}</td><td class="n">{{ row.clean }}</td><td class="n">{{ row.clean_band }}</td>
<td class="n">{{ row.paper }}</td><td class="n">{{ row.paper_band }}</td></tr>
{% endfor %}</table>
<h2>Examples</h2>
{% for example in examples %}<figure class="{{ example.verdict | lower }}"><figcaption><strong>{{ example.verdict }}
</strong> {{ example.id }}</figcaption><img src="{{ example.picture }}" alt="{{ example.caption }}">
<p><small>{{ example.caption }}</small></p>
<ul>{% for label, text in example.lines %}<li>{{ label }}: {{ text }}</li>{% endfor %}</ul></figure>
{% endfor %}
<h2>Run</h2><table>{% for name, value in facts %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</table>
<h2>For the model card</h2><pre>{{ index }}</pre>
</body></html>
"""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _band(band: Sequence[float | None] | None) -> str:
    return "-" if not band or band[0] is None else f"{band[0]:.1f} to {band[1]:.1f}"


def score_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of scores: overall scores first, then those of each type."""
    clean, paper = results["scores"]["clean"], results["scores"]["paper"]
    names = [name for name in dict.fromkeys([*clean, *paper]) if name not in ("bands", "counts")]
    rows = []
    for name in sorted(names, key=lambda name: "/" in name and not name.startswith("leo/")):
        row = {"name": name, "is_main": name == results["main_score"]}
        row["count"] = next(scores["counts"][name] for scores in (clean, paper) if name in scores["counts"])
        for protocol, scores in (("clean", clean), ("paper", paper)):
            row[protocol], row[f"{protocol}_band"] = _number(scores.get(name)), _band(scores["bands"].get(name))
        rows.append(row)
    return rows


def model_index(results: Mapping[str, Any]) -> str:
    """The block of a model card that tells the Hub the scores, YAML."""
    scores = results["scores"][results["protocol"]]
    values = [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type=results["task"],
            dataset_name=results["task"],
            dataset_split=results["split"],
            metric_type=name,
            metric_name=f"{name} ({results['protocol']} protocol)",
            metric_value=round(value, 2),
        )
        for name, value in scores.items()
        if name not in ("bands", "counts") and value is not None and ("/" not in name or name == results["main_score"])
    ]
    return ModelCardData(model_name=results["model"], eval_results=values).to_yaml() + "\n"


def _choose_examples(samples: Sequence[Mapping], answers: Sequence[Mapping], task: str) -> list[tuple[bool, int]]:
    """Right and wrong answers, drawn at random but always the same."""
    spec = EVALUATED_TASKS[task]
    is_right = [spec.quality(sample, answer) >= 0.5 for sample, answer in zip(samples, answers, strict=True)]
    draw = random.Random(0)
    chosen = []
    for verdict in (True, False):
        indices = [index for index, right in enumerate(is_right) if right is verdict]
        chosen += [(verdict, index) for index in sorted(draw.sample(indices, min(EXAMPLES, len(indices))))]
    return chosen


def _lines(sample: Mapping[str, Any], answer: Mapping[str, Any], task: str) -> list[tuple[str, str]]:
    spec = EVALUATED_TASKS[task]
    lines = [("question", sample["question"])] if sample["question"] else []
    if sample["question_type"]:
        lines.append(("type", sample["question_type"]))
    if spec.task.kind == "ground":
        found = spec.found_boxes(sample, answer, "clean")
        quality = "F1 at an overlap of 0.5" if task == "multi3drefer" else "overlap with what was meant"
        lines.append(("found", f"{len(found)} of {len(sample['candidate_boxes'])} candidates"))
        lines.append(("meant", f"{len(sample['gt_boxes'])}"))
        lines.append((quality, f"{spec.quality(sample, answer):.2f}"))
    else:
        lines.append(("answer", answer["text"] or "(none)"))
        lines.append(("right", " / ".join(sample["answers"])))
    return [(label, " ".join(text.split())) for label, text in lines]


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    settings: EvaluationSettings,
    grid: TokenGrid,
) -> None:
    """Write `report.md`, `report.html`, `model_index.yml` and the pictures that they show.

    Args:
        folder: Of the run.
        results: What `run_evaluation` writes.
        samples: All samples.
        answers: Of the model, in the same order.
        settings: Of the run.
        grid: Token grid of the model.
    """
    spec = EVALUATED_TASKS[settings.task]
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    examples = []
    for number, (right, index) in enumerate(_choose_examples(samples, answers, settings.task)):
        sample, answer = samples[index], answers[index]
        scene = load_scene(
            settings.data,
            sample["scene_id"],
            frame_names=sample["frame_names"],
            parts=spec.parts(settings.regions),
            num_frames=results["num_frames"],
            skip_invalid_poses=settings.skip_invalid_poses,
        )
        boxes = {"meant": sample["gt_boxes"], "given": [sample["input_box"]] if len(sample["input_box"]) else []}
        boxes["found"] = spec.found_boxes(sample, answer, "clean") if spec.task.kind == "ground" else []
        regions = SceneRegions(scene, grid, settings.regions, settings.protocol)
        masks = {name: regions.masks(group).numpy() for name, group in boxes.items() if group}
        picture, caption = draw_example(scene, boxes, masks, grid)
        picture.save(pictures / f"{number:02d}.jpg", quality=88)
        examples.append(
            {
                "verdict": "Right" if right else "Wrong",
                "id": sample["id"],
                "picture": f"pictures/{number:02d}.jpg",
                "caption": caption,
                "lines": _lines(sample, answer, settings.task),
            }
        )
    index = model_index(results)
    (folder / "model_index.yml").write_text(index, encoding="utf-8")
    notes = []
    if spec.has_meteor:
        if "meteor" not in results["scores"]["clean"]:
            reason = "as was asked" if settings.meteor is False else "it needs Java, and there is none"
            notes.append(f"METEOR is left out: {reason}.")
    if results["proposals"]:
        source = {"gt": "the annotated boxes", "pred": "boxes that a detector proposed on the mesh"}
        notes.append(f"Objects are chosen among {source[results['proposals']]}.")
    if results["region_source"]:
        notes.append(f"The model is shown where boxes are by masks made from {results['region_source']}.")
    facts = [(name, value) for name, value in results.items() if name not in LEFT_OUT and value is not None]
    values = {
        "title": f"{results['task']} {results['split']}, {results['model']}",
        "facts_line": f"{results['num_samples']} samples in {results['num_scenes']} scenes.",
        "results": results,
        "notes": notes,
        "rows": score_rows(results),
        "examples": examples,
        "facts": facts + [(f"{name} version", value) for name, value in results["versions"].items()],
        "index": index,
    }
    for name, template, escape in (("report.md", MARKDOWN, False), ("report.html", HTML, True)):
        environment = Environment(autoescape=escape, trim_blocks=True, keep_trailing_newline=True)
        (folder / name).write_text(environment.from_string(template).render(values), encoding="utf-8")
