"""Settings of an evaluation run."""

from dataclasses import dataclass

from trainer.data.scene_regions import RegionSource
from trainer.evaluation.metrics.scores import Protocol
from trainer.evaluation.tasks import EVALUATED_TASKS
from trainer.session.scene_session import DEFAULT_MAX_MEMORY

__all__ = ["EvaluationSettings"]


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of a run: model, benchmark, and all that its answers depend on.

    Args:
        model: Folder or Hub name of a model, or of a PEFT adapter, with its processor.
        task: Key of `EVALUATED_TASKS`.
        data: Folder in the public layout.
        protocol: Protocol of prompts, regions and the score that is named first. Both protocols are scored.
        split: Split of the benchmark; default: the one that papers report.
        boxes: Candidates of grounding, "gt" or "pred"; default: the original's choice.
        regions: Source of the masks of boxes: "depth", as in the original, or "poses" alone.
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
        output: Folder of answers, results and report.

    Raises:
        ValueError: If `task` is unknown or `batch_size` is below 1.
    """

    model: str
    task: str
    data: str
    protocol: Protocol = "clean"
    split: str | None = None
    boxes: str | None = None
    regions: RegionSource = "depth"
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
    output: str = "outputs/evaluation"

    def __post_init__(self):
        if self.task not in EVALUATED_TASKS:
            raise ValueError(f"`task` must be one of {sorted(EVALUATED_TASKS)}, got {self.task!r}.")
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}.")
