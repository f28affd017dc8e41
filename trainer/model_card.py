"""Model card of an export: what it is, how to use it, and the facts of the run that made it."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch import nn

from modeling_ide3d import IDE3DConfig
from processing.tables import markdown_table
from trainer.losses.blocks import CITATION_3D_IDE
from trainer.teachers import Teacher

if TYPE_CHECKING:
    from trainer.ide3d_trainer import IDE3DTrainer

METADATA = {
    "library_name": "transformers",
    "pipeline_tag": "image-text-to-text",  # `pipeline(model=...)` reads its task here, and none is called for videos
    "tags": [
        "custom_code",
        "ide3d",
        "3d-scene-understanding",
        "spatial-reasoning",
        "visual-grounding",
        "video",
        "video-text-to-text",
    ],
}
EVAL_RESULTS = ".eval_results"  # folder of a repository whose files the Hub shows as scores
REPOSITORY_LINE = re.compile(r'(?m)^model_id = ".*"$')
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a model; a folder is named without the one above it
BIBTEX_START = re.compile(r"(?m)^(?=@)")

TEMPLATE = """---
{{ card_data }}
---

# {{ model_name }}

A 3D-IDE model: it answers questions about an indoor scene, describes objects and finds them, given plain RGB video.
3D-IDE uses geometry (depth, camera poses, features of a 3D teacher) to train a model; nothing in this folder needs it.

## Quick start

Needs Transformers 5.24 or newer, and `av` for video files.

```python
from transformers import {{ auto_class }}, AutoProcessor

model_id = {{ model_id }}
processor = AutoProcessor.from_pretrained(model_id, trust_remote_code=True)
model = {{ auto_class }}.from_pretrained(model_id, trust_remote_code=True)

question = {"type": "text", "text": "How many chairs are in this room?"}
chat = [{"role": "user", "content": [{"type": "video", "path": "room.mp4"}, question]}]
options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
inputs = processor.apply_chat_template(chat, **options).to(model.device, model.dtype)
answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
```

## Input of each task

| task | input | call |
|---|---|---|
| question about a scene | video, question | `generate` |
| question about an object, description of an object | the same with one `<ground>` in the text for each object, \
and `region_masks` | `generate` |
| finding an object | video, request, the answer `<ground>`, `region_masks` of the candidates | `ground` |
| image | as a video of one frame, `{"type": "image", "path": ...}` | as above |

`region_masks` is a boolean tensor (batch, regions, frames, {{ grid }}) that marks the cells of each region in the \
visual token grid. It may come from boxes, from masks, or from whatever else tells where an object is; 3D input is \
not needed.
{% if model %}
## Model

{{ markdown_table(["", ""], model) }}
{% endif %}
{%- if language_model %}
## Language model

{{ language_model }}, licence: {{ language_model_license or "not known" }}. \
The weights of this model's language model began as its. Whoever uses this model should know that licence.
{% endif %}
{%- if training_data %}
## Training data

{{ training_data }}
{% endif %}
{%- if losses %}
## Training losses

{{ markdown_table(["loss", "weight"], losses) }}
{% endif %}
{%- if teacher %}
## Teacher

{{ teacher.name }}{% if teacher.version %} ({{ teacher.version }}){% endif %}, licence: {{ teacher.licence }}. Its \
features were targets of the training. Whoever uses this model should know that licence.
{% endif %}
{%- if scores %}
## Scores

{{ markdown_table(["task", "dataset", "split", "metric", "value"], scores) }}
{% endif %}
## Limits

{% for limit in limits -%}
- {{ limit }}
{% endfor %}
## Citation

```bibtex
{{ citations }}
```
"""

# True of the method, whatever the run.
METHOD_LIMITS = (
    "Grounding chooses among the regions it is given, or none of them; it proposes no regions and no 3D boxes.",
    "What no frame shows is not known to the model, and frames are sampled from the video.",
    "Answers, distances and sizes among them, are generated text and can be wrong.",
    "Loading runs the Python files of this folder (`trust_remote_code=True`): read them first.",
)


@dataclass(frozen=True)
class LossTerm:
    """Term of a training's objective: name, weight, and the module that knows its `citation`."""

    name: str
    weight: float
    loss: nn.Module | None = None

    @property
    def citation(self) -> str:
        """BibTeX of the works the term comes from; empty where there is nothing to cite."""
        return "" if self.loss is None else self.loss.citation


@dataclass(frozen=True)
class TeacherFacts:
    """Name, licence and version of a teacher, where only its cached features were there."""

    name: str
    licence: str
    version: str | None = None


def list_loss_terms(trainer: "IDE3DTrainer") -> list[LossTerm]:
    """List the weighted terms that a trainer sums; terms without a head are absent."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    losses = model.criterion.losses()
    heads = {
        "loss_depth": model.geometric_validator,
        "loss_cross_view_depth": model.geometric_validator,
        "loss_overlap_l1": model.geometric_validator,
        "loss_view_consistency": model.geometric_validator,
        "loss_distillation": model.teacher_projector,
        "loss_pose": model.pose_head,
        "loss_scale": model.scale_head,
    }
    terms = [LossTerm("loss_language", 1.0)]
    for name, weight in trainer.args.loss_weights.items():
        if name not in heads or heads[name] is not None:
            terms.append(LossTerm(name, weight, losses[name]))
    return terms


def create_model_card(
    *,
    model_name: str,
    model_id: str | None = None,
    auto_class: str = "AutoModel",
    config: IDE3DConfig | None = None,
    num_parameters: int | None = None,
    num_frames: int | None = None,
    license: str | None = None,
    language: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    training_data: str | None = None,
    losses: Sequence[LossTerm] = (),
    teacher: Teacher | TeacherFacts | None = None,
    scores: Sequence[EvalResult] = (),
    limits: Sequence[str] = (),
) -> ModelCard:
    """Write a model card from the facts of a run; sections without facts are absent.

    Args:
        model_name: Title.
        model_id: Name or folder that the quick start loads. Default: `model_name`.
        auto_class: Class that the quick start loads the model with.
        config: Sizes of the model, and the pretrained language model that it began with.
        num_parameters: Parameters of the exported model.
        num_frames: Most frames that the processor takes from a video.
        license: Licence of the weights, as the Hub names it.
        language: Language of the questions and answers, ISO 639.
        base_model: Hub name of the model that training started from. Default: the language model that `config` names.
        datasets: Hub names of the training data.
        training_data: The training data in words.
        losses: Terms of the objective, as `list_loss_terms(trainer)` lists them. Weight 0 is left out.
        teacher: Teacher of the distillation: anything with a `name`, a `version` and a `licence`.
        scores: Results; they become the table and the `model-index` of the metadata.
        limits: Limits of this model, beside those of the method.

    Returns:
        The card; `str(card)` is the content of a README.md.

    Raises:
        ValueError: If a score or a weight is not a finite number.
    """
    _check_numbers(losses, scores)
    losses = [term for term in losses if term.weight != 0]
    language_model = None if config is None else config.language_model_name
    if language_model is not None and HUB_NAME.fullmatch(language_model):
        base_model = base_model or language_model
    origin = {"license": license, "language": language, "base_model": base_model, "datasets": list(datasets) or None}
    data = ModelCardData(model_name=model_name, eval_results=list(scores) or None, **origin, **METADATA)
    facts = {
        "language_model": language_model,
        "language_model_license": None if config is None else config.language_model_license,
        "training_data": training_data,
        "losses": [(term.name, term.weight) for term in losses],
        "teacher": teacher,
        "scores": [_score_row(score) for score in scores],
        "markdown_table": markdown_table,
    }
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        model_name=model_name,
        model_id=_quote(model_id or model_name),
        auto_class=auto_class,
        grid="rows, cols" if config is None else "{}, {}".format(*config.token_grid),
        model=_describe_model(config, num_parameters, num_frames),
        **facts,
        limits=(*METHOD_LIMITS, *limits),
        citations=_join_citations([CITATION_3D_IDE, *(term.citation for term in losses)]),
    )


def _score_row(score: EvalResult) -> tuple[Any, ...]:
    """Return task, data set, split, metric and value of a score."""
    task, metric = score.task_name or score.task_type, score.metric_name or score.metric_type
    return task, score.dataset_name, score.dataset_split or "", metric, score.metric_value


def _check_numbers(losses: Sequence[LossTerm], scores: Sequence[EvalResult]) -> None:
    """Raise ValueError where a weight or a score is not a finite number."""
    for term in losses:
        if not math.isfinite(term.weight):
            raise ValueError(f"The weight of the loss {term.name!r} must be a finite number, got {term.weight}.")
    for score in scores:
        if not isinstance(score.metric_value, (int, float)) or not math.isfinite(score.metric_value):
            raise ValueError(
                f"The score {score.metric_type!r} on {score.dataset_name!r} must be a finite number, got "
                f"{score.metric_value!r}."
            )


def set_model_id(card: ModelCard, model_id: str) -> ModelCard:
    """Copy a card and let its quick start load `model_id`, a folder or Hub name.

    Raises:
        ValueError: If the card has no line `model_id = "..."`.
    """
    content, count = REPOSITORY_LINE.subn(lambda _: f"model_id = {_quote(model_id)}", card.content)
    if count == 0:
        raise ValueError('The model card has no line `model_id = "..."` to set. Was it written by create_model_card?')
    return ModelCard(content)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _describe_model(
    config: IDE3DConfig | None, num_parameters: int | None, num_frames: int | None
) -> list[tuple[str, str]]:
    rows = []
    if num_parameters is not None:
        rows.append(("parameters", f"{num_parameters:,}"))
    if config is not None:
        vision, text = config.vision_config, config.text_config
        rows += [
            ("vision tower", f"{vision.model_type}, {vision.num_hidden_layers} layers, width {vision.hidden_size}"),
            ("language model", f"{text.model_type}, {text.num_hidden_layers} layers, width {text.hidden_size}"),
            ("frame", f"{vision.image_size} x {vision.image_size} pixels, {config.tokens_per_frame} tokens"),
        ]
    if num_frames is not None:
        rows.append(("frames taken from a video", f"{num_frames} at most"))
    return rows


def _join_citations(citations: Sequence[str]) -> str:
    """BibTeX entries of all citations, each once, in order."""
    entries = [entry.strip() for citation in citations for entry in BIBTEX_START.split(citation)]
    return "\n\n".join(dict.fromkeys(entry for entry in entries if entry))


__all__ = ["EVAL_RESULTS", "LossTerm", "TeacherFacts", "create_model_card", "list_loss_terms", "set_model_id"]
