"""Figures of a run as sums and counts, so that every average over batches, steps and processes is exact."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.supervision.camera_targets import measure_cameras
from trainer.supervision.criterion import compared_depth

DEPTH_RATIO = 1.25  # The usual first threshold of depth estimation.
Pair = tuple[Tensor | float, Tensor | float]


class RunningMeans:
    """Sums and counts of named figures; all processes reduce tensors of one shape.

    Args:
        names: Names of the figures.

    Raises:
        KeyError: If a figure with another name is added.
    """

    def __init__(self, names: Iterable[str]):
        self.rows = {name: row for row, name in enumerate(names)}
        self.sums: Tensor | None = None

    def add(self, values: Mapping[str, Pair], device: torch.device) -> None:
        """Add sum and count of each figure. Nothing waits for the host."""
        rows = torch.zeros(len(self.rows), 2, dtype=_dtype(device), device=device)
        for name, (total, count) in values.items():
            rows[self.rows[name], 0], rows[self.rows[name], 1] = total, count
        self.sums = rows if self.sums is None else self.sums + rows

    def clear(self) -> None:
        """Forget what was added."""
        self.sums = None

    def pop(self, gather: Callable[[Tensor], Tensor], device: torch.device) -> dict[str, float]:
        """Return the mean of each figure added since the last call, over all processes.

        All processes have to call it.
        """
        sums = self.sums
        if sums is None:
            sums = torch.zeros(len(self.rows), 2, dtype=_dtype(device), device=device)
        totals = gather(sums.unsqueeze(0)).sum(0).tolist()
        self.clear()
        return {name: totals[row][0] / totals[row][1] for name, row in self.rows.items() if totals[row][1]}


def _dtype(device: torch.device) -> torch.dtype:
    # Counts of pixels outgrow the whole numbers of float32; Apple's GPUs have no other.
    return torch.float32 if device.type == "mps" else torch.float64


def drop_repeats(batch: Mapping[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Take the targets from samples that only fill up the last batches.

    The last batches of a data set are completed by its first samples, so that every process has equally many. The
    repeated samples stay in the batch; they just have nothing to be compared with.

    Args:
        batch: Batch of `IDE3DDataCollator`, taken from a data loader that accelerate prepared.
        accelerator: Accelerator of that data loader.

    Raises:
        ValueError: If the length of the data set is unknown, and with it what is repeated.
    """
    state, batch = accelerator.gradient_state, dict(batch)
    if accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder == 0:
        return batch
    if state.remainder < 0:
        raise ValueError(
            f"{accelerator.num_processes} processes evaluate a data set without a length: samples that come twice "
            "would count twice. Give a data set with a length, set dispatch_batches=True in accelerator_config, or "
            "evaluate in one process."
        )
    rows = len(batch["input_ids"])
    is_repeat = (
        torch.arange(rows, device=batch["input_ids"].device) >= state.remainder - rows * accelerator.process_index
    )
    if "depth" in batch and "has_geometry" not in batch:
        batch["has_geometry"] = torch.ones_like(is_repeat)
    for name, nothing in (
        ("labels", -100),
        ("has_geometry", False),
        ("teacher_features", 0.0),
        ("region_targets", False),
    ):
        if name in batch:
            value = batch[name]
            batch[name] = value.masked_fill(is_repeat.to(value.device).view(-1, *[1] * (value.ndim - 1)), nothing)
    return batch


DEPTH_FIGURES = ("depth_abs_rel", "depth_delta", "depth_confidence")
TASK_FIGURES = ("token_accuracy", "grounding_accuracy")


@torch.no_grad()
def measure_depth(predicted_depth: Tensor, confidence: Tensor, depth: Tensor) -> dict[str, Pair]:
    """Errors of the validator over the measured pixels: sums and their number.

    `depth_abs_rel` is |prediction - depth| / depth. `depth_delta` is the share of pixels with a ratio below 1.25
    either way. `depth_confidence` is the confidence that the validator predicts.

    Shape:
        predicted_depth, confidence, depth: (videos, V, h, w), metres; depth 0 = no measurement.
    """
    mask = depth > 0
    prediction, measured, count = predicted_depth[mask].float(), depth[mask].float(), mask.sum()
    ratio = torch.maximum(prediction / measured, measured / prediction)
    return {
        "depth_abs_rel": (((prediction - measured).abs() / measured).sum(), count),
        "depth_delta": ((ratio < DEPTH_RATIO).sum(), count),
        "depth_confidence": (confidence[mask].float().sum(), count),
    }


@torch.no_grad()
def measure_geometry(
    outputs: Any, targets: Mapping[str, Any], depth_range: tuple[float, float] | None
) -> dict[str, Pair]:
    """Measure the errors of predicted depth and cameras: sums and counts; see `measure_depth`, `measure_cameras`."""
    figures: dict[str, Pair] = dict(measure_cameras(outputs, targets))
    if "depth" in targets:
        depth = compared_depth(outputs.depth, targets, depth_range)
        figures |= measure_depth(outputs.depth, outputs.depth_confidence, depth)
    return figures


@torch.no_grad()
def measure_tasks(outputs: Any, labels: Tensor | None, targets: Mapping[str, Any]) -> dict[str, Pair]:
    """Count answer tokens, and regions, that score highest where they are right: sums and counts."""
    figures: dict[str, Pair] = {}
    if labels is not None:
        is_said = labels[:, 1:] != -100
        is_right = outputs.logits[:, :-1].argmax(-1) == labels[:, 1:]
        figures["token_accuracy"] = ((is_right & is_said).sum(), is_said.sum())
    if "region_targets" in targets:
        is_true = targets["region_targets"]
        chosen = is_true.gather(1, outputs.region_scores.argmax(1, keepdim=True))
        figures["grounding_accuracy"] = (chosen.sum(), is_true.any(1).sum())
    return figures


__all__ = ["DEPTH_FIGURES", "TASK_FIGURES", "RunningMeans", "drop_repeats", "measure_geometry", "measure_tasks"]
