"""Run a training step of a model of any size without its numbers. Experimental: private names of torch.

Shapes are computed, weights and activations are not. The model is built on the meta device. Fake tensors show it as a
model on the CPU, so that attention kernels and mixed precision are chosen as for real tensors. Token ids, masks,
measured depth and cameras stay real, because the model reads their values; where one meets a fake tensor, it becomes
fake. The loss terms read the values of the predictions too: they get random ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map_only

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.targets import GeometryTargets
from trainer.loop.checks import find_training_model
from trainer.planning.step_recorder import StepRecorder
from trainer.supervision.criterion import GeometryCriterion
from trainer.training_arguments import IDE3DTrainingArguments

MAX_SIDE = 128  # pixels of the maps that loss terms are really computed on; they cost the same for every pixel
MAPS = ("depth", "depth_confidence", "cross_view_depth")
PREDICTIONS = (*MAPS, "teacher_prediction", "pose", "scale", "region_scores")
_INDEXED = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
    torch.ops.aten._unsafe_index_put.default,
}


class FakeTensors:
    """Makes fake tensors, and a fake model of one that lies on the meta device."""

    def __init__(self):
        self.mode = FakeTensorMode()

    def make(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Make a fake tensor of the CPU with the shape of this one, without numbers."""
        return FakeTensor(self.mode, torch.empty_like(tensor, dtype=dtype, device="meta"), torch.device("cpu"))

    def convert(self, model: nn.Module) -> None:
        """Replace all weights and buffers, which are on the meta device, by fake tensors.

        Raises:
            ValueError: If a weight is not on the meta device.
        """
        done: dict[int, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            if parameter.device.type != "meta":
                raise ValueError(f"{name} is on {parameter.device}, not on meta: build the model under it.")
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    fake = done.get(id(value))
                    if fake is None:
                        fake = nn.Parameter(self.make(value.data), requires_grad=value.requires_grad)
                        done[id(value)] = fake
                    module._parameters[name] = fake
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else self.make(buffer)


class FakeOperands(TorchDispatchMode):
    """Mode that makes a real operand fake where it meets a fake one.

    Where a real mask chooses values, the choice is kept.
    """

    def __init__(self, tensors: FakeTensors):
        super().__init__()
        self.tensors = tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation."""
        kwargs = kwargs or {}
        are_fake = {isinstance(value, FakeTensor) for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)}
        if are_fake == {True, False}:
            if func in _INDEXED:
                args = (args[0], _read_masks(args[1]), *args[2:])
            args, kwargs = tree_map_only(Tensor, self._convert, (args, kwargs))
        return func(*args, **kwargs)

    def _convert(self, tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self.tensors.mode.from_tensor(tensor)


def _read_masks(indices: list[Tensor | None]) -> list[Tensor | None]:
    read: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor)
        read += index.nonzero(as_tuple=True) if is_mask else [index]
    return read


class _MadeUp(torch.autograd.Function):
    """Random numbers in the place of a fake prediction; its gradient is fake again."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, size: tuple[int, int] | None, criterion: "_FakeCriterion") -> Tensor:
        ctx.prediction, ctx.tensors = prediction, criterion.tensors
        shape = prediction.shape if size is None else (*prediction.shape[:-2], *size)
        with _disable_current_modes():
            made_up = 2 + 0.1 * torch.rand(shape, dtype=prediction.dtype)
        criterion.recorder.ignore(made_up)
        return made_up

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None, None]:
        return ctx.tensors.make(ctx.prediction), None, None


class _FakeCriterion(nn.Module):
    """Criterion on random predictions; large maps are thinned to every k-th pixel.

    What they cost counts k * k times.
    """

    def __init__(self, criterion: GeometryCriterion, tensors: FakeTensors, recorder: StepRecorder):
        super().__init__()
        self.criterion, self.tensors, self.recorder = criterion, tensors, recorder
        self.num_pairs = 0

    @property
    def terms(self) -> frozenset[str]:
        return self.criterion.terms

    def select_pairs(self, *args: Any, **kwargs: Any) -> Any:
        return self.criterion.select_pairs(*args, **kwargs)

    def build_camera_targets(self, *args: Any) -> dict[str, Any]:
        return self.criterion.build_camera_targets(*args)

    def forward(self, outputs: Any, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        targets = dict(targets)
        size = None
        if "depth" in targets:
            step = _find_step(*targets["depth"].shape[-2:])
            self.recorder.scale = step**2
            size = self._shrink(targets, step)
        made_up = replace(outputs)  # the model keeps its own
        for name in PREDICTIONS:
            prediction = outputs.get(name)
            if prediction is not None:
                setattr(made_up, name, _MadeUp.apply(prediction, size if name in MAPS else None, self))
        return self.criterion(made_up, targets)

    def _shrink(self, targets: dict[str, Any], step: int) -> tuple[int, int]:
        targets["depth"] = targets["depth"][..., ::step, ::step].contiguous()
        pairs = targets.get("pairs")
        if pairs is not None and len(pairs):
            self.num_pairs = len(pairs)
            targets["pairs"] = pairs.with_covisible(pairs.covisible[..., ::step, ::step].contiguous())
        if "intrinsics" in targets:
            targets["intrinsics"] = targets["intrinsics"].clone()
            targets["intrinsics"][..., :2, :] /= step
        return tuple(targets["depth"].shape[-2:])


def _find_step(height: int, width: int) -> int:
    """Find the smallest step that divides both sides into at most `MAX_SIDE` pixels; else 1."""
    fits = (
        k for k in range(1, min(height, width)) if height % k == 0 == width % k and max(height, width) // k <= MAX_SIDE
    )
    return next(fits, 1)


def run_fake_step(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    args: IDE3DTrainingArguments,
    *,
    gradient_share: float = 1.0,
    autocast: bool | None = None,
) -> tuple[StepRecorder, int]:
    """Run forward and backward pass of one batch as the arguments say.

    Args:
        model: Training model on the meta device, prepared as `IDE3DTrainer` prepares it, or PEFT's wrapper of one. Its
            weights are fake afterwards.
        batch: Batch of the collator; the pixels may be on the meta device.
        args: Training arguments.
        gradient_share: Share as in `StepRecorder`; above 1 where gradients are wider than the computed numbers.
        autocast: Whether the forward pass runs in mixed precision; default: `args.bf16`.

    Returns:
        The recorder, and the number of frame pairs.

    Raises:
        ValueError: If the model has weights.
    """
    tensors = FakeTensors()
    tensors.convert(model)
    core: IDE3DForConditionalGenerationWithGeometry = find_training_model(model)
    model.train()
    if args.activation_checkpointing:
        core.activation_checkpointing_enable(args.activation_checkpointing_kwargs)
    batch = {
        name: value if name != "pixel_values_videos" else tensors.make(value, core.dtype)
        for name, value in batch.items()
    }
    weights = {name: weight for name, weight in args.loss_weights.items() if weight}
    criterion = core.criterion
    criterion.terms = frozenset(weights)
    recorder = StepRecorder(core, gradient_share)
    core.criterion = fake = _FakeCriterion(criterion, tensors, recorder)
    is_mixed = args.bf16 if autocast is None else autocast
    forward = model.forward
    if is_mixed:
        forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(forward))
    targets = core.build_targets(**batch)
    has_gradients = args.gradient_accumulation_steps > 1
    try:
        with recorder, FakeOperands(tensors):
            if has_gradients:
                _hold_gradients(core, tensors, recorder)
            _compute_loss(forward, batch, targets, weights).backward()
    finally:
        core.criterion = criterion
    return recorder, fake.num_pairs


def _hold_gradients(model: nn.Module, tensors: FakeTensors, recorder: StepRecorder) -> None:
    """Gradients of earlier batches of the optimizer step."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = tensors.make(parameter.data)
            recorder.mark_gradient(parameter)


def _compute_loss(
    forward: Any,
    batch: Mapping[str, Tensor],
    targets: GeometryTargets,
    weights: Mapping[str, float],
) -> Tensor:
    """Compute the minimised sum; other outputs are freed before the backward pass, as in Trainer."""
    outputs = forward(**batch, targets=targets, num_items_in_batch=torch.tensor(1))
    terms = [weight * outputs[name] for name, weight in weights.items() if outputs.get(name) is not None]
    return sum(terms, start=outputs.loss)


__all__ = ["FakeOperands", "FakeTensors", "run_fake_step"]
