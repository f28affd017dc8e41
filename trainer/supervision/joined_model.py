"""Heads inside the model that they supervise, so that whatever wraps the model sees their weights too."""

import difflib
import reprlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.processes import count_processes, sum_over_processes
from trainer.supervision.video_targets import VideoTargets

if TYPE_CHECKING:
    from trainer.supervision.geometry_supervision import GeometrySupervision

__all__ = ["HEADS_NAME", "PREPARED", "TARGETS", "JoinedModel", "PreparedTargets", "prepare_step"]

# Keys of a batch that the model itself never sees.
TARGETS = ("depth", "intrinsics", "camera_to_world", "has_geometry", "depth_alignment", "teacher_features")
PREPARED = "prepared_targets"
HEADS_NAME = "geometry_supervision"  # of the heads inside the model
IGNORED_LABEL = -100
# Targets that lose their meaning in these types: a rotation is none any more, 3 m are off by a centimetre.
TOO_COARSE = {
    "depth": (torch.bfloat16,),
    "intrinsics": (torch.bfloat16, torch.float16),
    "camera_to_world": (torch.bfloat16, torch.float16),
}


@dataclass(frozen=True)
class PreparedTargets:
    """Targets of one batch, and what all batches of its optimizer step are compared on.

    It is no mapping on purpose: FSDP and DeepSpeed cast the floats of a model's arguments to half precision, also
    inside mappings.

    Args:
        targets: Targets of the batch.
        totals: Denominator of each term over all batches and processes of the step; float32 scalars.
        steps: Batches of the step in this process.
    """

    targets: VideoTargets
    totals: dict[str, Tensor]
    steps: int


def prepare_step(supervision: "GeometrySupervision", batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Replace the targets of an optimizer step's batches; see `GeometrySupervision.prepare_step`."""
    if not isinstance(batches, (list, tuple)) or not all(isinstance(batch, Mapping) for batch in batches):
        raise TypeError(
            f"prepare_step takes the list of a step's batches, each a mapping, got {reprlib.repr(batches)}."
        )
    names = list(supervision.criterion.losses())
    counts = torch.zeros(len(names), device=next(supervision.parameters()).device)
    prepared = []
    for batch in batches:
        _check_names(batch)
        others = {key: value for key, value in batch.items() if key not in TARGETS}
        targets = supervision.build_targets(others, **{key: batch[key] for key in TARGETS if key in batch})
        for name, count in targets.count().items():
            counts[names.index(name)] += count
        prepared.append((others, targets))
    totals = dict(zip(names, sum_over_processes(counts), strict=True))
    return [{**others, PREPARED: PreparedTargets(targets, totals, len(batches))} for others, targets in prepared]


class JoinedModel:
    """Hooks of a model that holds the heads that supervise it.

    They take the targets from its arguments and add the weighted terms to its loss.

    Args:
        supervision: Supervision that is attached to the model.
        model: Model that is called in the training, with or without adapters around it.
        adds_loss: Whether the terms are added to the model's own loss.
    """

    def __init__(self, supervision: "GeometrySupervision", model: nn.Module, adds_loss: bool):
        self.supervision = supervision
        self.adds_loss = adds_loss
        self._model = weakref.ref(model)
        self._given: dict[str, Any] | None = None
        self._loss: Tensor | None = None
        model.add_module(HEADS_NAME, supervision)
        # What `save_pretrained` leaves out; its own keys are put back by `remove`.
        self._ignored = model._keys_to_ignore_on_save if isinstance(model, PreTrainedModel) else None
        if self._ignored is not None:
            keys = {f"{HEADS_NAME}.{key}" for key in supervision.state_dict()}
            model._keys_to_ignore_on_save = {*self._ignored, *keys}
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end, with_kwargs=True),
        ]

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the model takes copies of the hooks along: they keep the targets from it and do nothing else.
        return {**self.__dict__, "_handles": [], "_model": None, "_given": None, "_loss": None}

    def remove(self) -> None:
        """Take heads and hooks out of the model."""
        for handle in self._handles:
            handle.remove()
        model = None if self._model is None else self._model()
        if model is not None and self._handles:
            delattr(model, HEADS_NAME)
            if self._ignored is not None:
                model._keys_to_ignore_on_save = self._ignored
        self._handles, self._given, self._loss = [], None, None

    def take_loss(self) -> Tensor | None:
        """Return the weighted terms of the last pass, once; None without one."""
        loss, self._loss = self._loss, None
        return loss

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        _check_names(kwargs)
        self._given = {key: value for key, value in kwargs.items() if key in (*TARGETS, PREPARED)}
        self._loss = None
        return args, {key: value for key, value in kwargs.items() if key not in self._given}

    def _end(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        given, self._given = self._given, None
        if not (self._handles and module.training and torch.is_grad_enabled()):
            return None
        if not isinstance(output, dict):
            raise TypeError(
                f"A supervised model must return a ModelOutput, got {type(output).__name__}. Call it with "
                "return_dict=True."
            )
        mean, share = self._weigh(given or {}, kwargs)
        if self.adds_loss:
            # A loss by the number of tokens is a share of the step's; any other is a mean over processes and batches.
            added = mean if kwargs.get("num_items_in_batch") is None else share
        else:
            self._loss = mean
            added = 0.0 * mean  # DDP looks for the heads in the graph of the outputs
        loss = output.get("loss")
        if loss is not None:
            output["loss"] = loss + added.to(loss.device)
        elif self.adds_loss:
            output["loss"] = added
        return output

    def _weigh(self, given: Mapping[str, Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the weighted terms as part of a mean and as part of a sum.

        The mean is over processes and batches of an optimizer step, the sum too; both give the same gradients.
        """
        supervision, processes = self.supervision, count_processes()
        recorded = supervision.take_pass()
        prepared = given.get(PREPARED)
        if prepared is None:
            _check_precision(given)
            targets = supervision.build_targets(recorded.arguments, **given)
        elif not isinstance(prepared, PreparedTargets):
            raise TypeError(f"{PREPARED} must be what prepare_step made, got {reprlib.repr(prepared)}.")
        elif len(given) > 1:
            raise ValueError(f"Give prepared targets alone, got {sorted(given)}.")
        else:
            targets = prepared.targets
        terms, counts = supervision(recorded, targets), targets.count()
        weights = supervision.loss_weights
        if prepared is None:
            device = next(iter(terms.values())).device
            totals, part = self._sum_counts(counts, kwargs.get("labels"), kwargs.get("num_items_in_batch"), device)
        else:
            totals = prepared.totals
        # Also terms of weight 0: whatever the batch has, all processes reduce the gradients of all heads.
        total = sum(
            weights.get(name, 0.0)
            * (term if name not in counts else term * (counts[name] / totals[name].clamp(min=1e-30)))
            for name, term in terms.items()
        )
        supervision.terms = {name: term.detach() for name, term in terms.items() if weights.get(name)}
        if prepared is None:
            return total * processes, total * part
        return total * processes * prepared.steps, total

    def _sum_counts(
        self, counts: Mapping[str, Tensor], labels: Tensor | None, num_items: Any, device: torch.device
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Return the denominators over all processes, and this batch's share of a step.

        The share is that of its answer tokens, over all processes.

        Raises:
            ValueError: If the loss is by the number of tokens, and there are no labels to count.
        """
        names = list(self.supervision.criterion.losses())
        values = [counts.get(name, torch.zeros(())).to(device) for name in names]
        if num_items is None:
            return dict(zip(names, sum_over_processes(torch.stack(values)), strict=True)), 1.0
        if labels is None:
            raise ValueError(
                "num_items_in_batch is given without labels: which share of the optimizer step this batch is cannot "
                "be told. Prepare the batches of a step by `supervision.prepare_step`, as SupervisedTrainer does."
            )
        values.append((labels[..., 1:] != IGNORED_LABEL).sum().float().to(device))
        *summed, tokens = sum_over_processes(torch.stack(values))
        return dict(zip(names, summed, strict=True)), tokens / torch.as_tensor(num_items, device=device).clamp(min=1)


def _check_names(batch: Mapping[str, Any]) -> None:
    """Raise TypeError for a misspelt target: models of Transformers take any further argument."""
    for key in batch:
        meant = [] if key in TARGETS else difflib.get_close_matches(str(key), TARGETS, n=1, cutoff=0.75)
        if meant:
            raise TypeError(f"{key!r} is no target; the targets are {', '.join(TARGETS)}. Is {meant[0]} meant?")


def _check_precision(given: Mapping[str, Any]) -> None:
    """Raise ValueError for targets that came in a type that cannot hold them."""
    for name, coarse in TOO_COARSE.items():
        values = given.get(name)
        values = [values] if isinstance(values, Tensor) else values if isinstance(values, (list, tuple)) else []
        for value in values:
            if isinstance(value, Tensor) and value.dtype in coarse:
                raise ValueError(
                    f"{name} came in {str(value.dtype).removeprefix('torch.')}, which is too coarse for it. FSDP and "
                    "DeepSpeed cast the arguments of a model: prepare the batches of a step by "
                    "`supervision.prepare_step`, whose targets stay in float32."
                )
