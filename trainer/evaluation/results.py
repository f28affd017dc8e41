"""Settings of an evaluation run."""

import math
from dataclasses import dataclass
from typing import Any, get_args

import torch
from huggingface_hub.utils import validate_repo_id
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_ide3d.loading_ide3d import check_dtype
from processing.argument_rules import check_flag, path_text
from processing.benchmarks.readers.requirements import list_modes, requirements_for
from processing.benchmarks.readers.tasks import BOX_SOURCES, FRAME_RULES
from processing.boxes_in_words import NumberStyle
from processing.scene_names import check_names
from trainer.data.scene_regions import REGION_SOURCES, RegionSource
from trainer.evaluation.metrics.ngrams import has_java
from trainer.evaluation.metrics.scores import Protocol
from trainer.evaluation.rgb_only import FINDINGS, Finding
from trainer.evaluation.tasks import EVALUATED_TASKS
from trainer.field_rules import POSITIVE, check_choice, check_number, check_text, whole_number
from trainer.session.scene_session import DEFAULT_MAX_MEMORY

__all__ = ["SCENE_SCORES", "EvaluationSettings"]

SCENE_SCORES = "scene_scores.json"  # of a run's folder: what `compare_runs` needs beside `results.json`


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of a run: model, benchmark, and all that its answers depend on.

    Args:
        model: Folder or Hub name of a model, or of a PEFT adapter, with its processor.
        task: Key of `EVALUATED_TASKS`.
        data: Folder in the public layout.
        mode: "proposals" gives the model the benchmark's boxes, by regions made from depth and poses. "rgb_only"
            opens frames alone to answer. Default: "proposals" for tasks with boxes, "rgb_only" for questions, which
            have no other; see `processing.benchmarks.requirements_for`.
        protocol: Protocol of prompts, regions and the score that is named first. Both protocols are scored.
        split: Split of the benchmark; default: the one that papers report.
        boxes: Candidates of grounding, "gt" or "pred"; default: the original's choice.
        regions: Source of the masks of boxes: "depth", as in the original, or "poses" alone.
        finding: Way in which "rgb_only" finds objects: "regions" that the model proposes, or its boxes in "words".
        numbers: Way in which boxes in words write measures, see `processing.boxes_in_words.write_boxes`. Default:
            "tokens" where the model's tokenizer has them, else "digits".
        clicks: File of clicks, by which "rgb_only" is told what to describe; see `trainer.evaluation.clicks`.
        frames: Choice of the frames that are shown: "uniform", "listed" or "coverage".
        num_frames: Largest number of frames; default: that of the processor.
        skip_invalid_poses: Whether frames without a finite pose are left out, where a task needs poses. Otherwise they
            are an error.
        scenes: Names of the scenes; default: all.
        batch_size: Largest number of questions of a scene at a time; fewer where `max_memory` holds fewer.
        max_new_tokens: Largest number of tokens of an answer; default: that of the task.
        max_memory: Bytes beside the weights; see `SceneSession`.
        dtype: Type of the weights, such as "bfloat16"; "auto" takes that of the file.
        attention: Attention implementation; default: that of Transformers.
        variant: Variant of the metric, such as "ptb"; default: that of the task.
        meteor: Whether to run METEOR, which takes long; default: where there is Java.
        answer_only: Whether to leave the scores out. The same settings without it score the stored answers; `data` may
            then be another copy of the folder, which holds the truth.
        dataset_id: Name of the benchmark's data set on the Hub, by which `.eval_results` names it. Default: that of
            VSI-Bench; without one no such file is written.
        output: Folder of answers, results and report.

    Raises:
        TypeError: If a setting is of another type; the message names it.
        ValueError: If a setting has a value that no run can have. Nothing was loaded then.
        RuntimeError: If METEOR or the variant "ptb" is asked for without Java.
    """

    model: str
    task: str
    data: str
    mode: str | None = None
    protocol: Protocol = "clean"
    split: str | None = None
    boxes: str | None = None
    regions: RegionSource = "depth"
    finding: Finding = "regions"
    numbers: NumberStyle | None = None
    clicks: str | None = None
    frames: str = "uniform"
    num_frames: int | None = None
    skip_invalid_poses: bool = False
    scenes: tuple[str, ...] | None = None
    batch_size: int = 64
    max_new_tokens: int | None = None
    max_memory: int = DEFAULT_MAX_MEMORY
    dtype: str = "auto"
    attention: str | None = None
    variant: str | None = None
    meteor: bool | None = None
    answer_only: bool = False
    dataset_id: str | None = None
    output: str = "outputs/evaluation"

    def __post_init__(self):
        for name in ("model", "data", "output"):
            self._set(name, path_text(getattr(self, name), name))
        check_choice("`task`", self.task, sorted(EVALUATED_TASKS))
        spec = EVALUATED_TASKS[self.task]
        check_choice("`protocol`", self.protocol, ("clean", "paper"))
        check_choice("`regions`", self.regions, list(REGION_SOURCES))
        check_choice("`frames`", self.frames, FRAME_RULES)
        optional = {"split": spec.task.splits, "boxes": BOX_SOURCES, "variant": spec.variants}
        for name, choices in optional.items():
            check_choice(f"`{name}` of {self.task}", getattr(self, name), (*choices, None))
        self._check_mode()
        for name in ("num_frames", "max_new_tokens", "batch_size"):
            if getattr(self, name) is not None or name == "batch_size":
                self._set(name, whole_number(f"`{name}`", getattr(self, name)))
        if self.max_memory != math.inf:
            check_number("`max_memory`", self.max_memory, POSITIVE)
        for name in ("skip_invalid_poses", "answer_only"):
            self._set(name, check_flag(getattr(self, name), name))
        if self.scenes is not None:
            self._set("scenes", tuple(check_names(self.scenes, "scenes")))
            if not self.scenes:
                raise ValueError("`scenes` name no scene: name one, or leave them out to take all.")
        if isinstance(self.dtype, dict):
            raise TypeError(
                f"dtype must be one type for all weights, such as 'bfloat16' or 'auto', got {self.dtype!r}."
            )
        check_dtype(self.dtype)
        if isinstance(self.dtype, torch.dtype):
            self._set("dtype", str(self.dtype).removeprefix("torch."))
        if self.attention is not None:
            check_text("`attention`", self.attention)
            if "/" not in self.attention:  # a kernel of the Hub
                check_choice(
                    "`attention`",
                    self.attention.removeprefix("paged|"),
                    ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()],
                )
        if self.dataset_id is not None:
            check_text("`dataset_id`", self.dataset_id)
            validate_repo_id(self.dataset_id)
        if self.meteor is not None:
            self._set("meteor", check_flag(self.meteor, "meteor"))
        if (self.variant == "ptb" or (self.meteor and spec.has_meteor)) and not has_java():
            what = '`variant` "ptb"' if self.variant == "ptb" else "`meteor`"
            raise RuntimeError(f"{what} needs Java, and there is no `java` on the path: install a JRE (17).")

    @property
    def is_rgb_only(self) -> bool:
        """Whether objects are found or described without given boxes."""
        return self.mode == "rgb_only" and EVALUATED_TASKS[self.task].needs_regions

    @property
    def lifted_by(self) -> RegionSource:
        """Geometry that scores of found objects need: boxes in words do without depth."""
        return "poses" if self.finding == "words" else self.regions

    def _check_mode(self) -> None:
        """Resolve the mode; raise ValueError for settings that it has no use for."""
        needed = requirements_for(self.task, self.mode, split=self.split, frames=self.frames, regions=self.regions)
        self._set("mode", list_modes(self.task, self.frames)[0] if self.mode is None else self.mode)
        check_choice("`finding`", self.finding, FINDINGS)
        if self.numbers is not None:
            check_choice("`numbers`", self.numbers, get_args(NumberStyle))
        if self.clicks is not None:
            self._set("clicks", path_text(self.clicks, "clicks"))
        is_found = self.is_rgb_only and not needed.needs_clicks
        where = f"{self.task} in the mode {self.mode!r}"
        if needed.needs_clicks and self.clicks is None:
            raise ValueError(f"{where} needs `clicks` on what to describe: `ide3d clicks` makes a file of them.")
        if needed.needs_clicks and self.protocol == "paper":
            raise ValueError(f'`protocol` of {where} must be "clean": the words of "paper" tell where the box is.')
        refused = {
            "clicks": self.clicks is not None and not needed.needs_clicks,
            "finding": self.finding != "regions" and not is_found,
            "numbers": self.numbers is not None and self.finding != "words",
            "boxes": self.boxes is not None and self.is_rgb_only,
            "regions": self.regions != "depth" and self.is_rgb_only,
        }
        for name, is_refused in refused.items():
            if is_refused:
                raise ValueError(f"{where} has no use for `{name}`, got {getattr(self, name)!r}. Leave it out.")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
