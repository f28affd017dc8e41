"""Count operations and memory of a training step by part of the model. Experimental: private names of torch."""

import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from trainer.loop.model_parts import PARTS, find_part
from trainer.supervision.criterion import GeometryCriterion

LOSSES, OTHER, GRADIENTS = "losses", "other", "gradients"
# Parts of a step. The heads of "geometry" count apart, and so do the two ways the validator is used. "losses" are the
# terms that compare maps of depth; "other" is what no module does, the loss of the answers above all.
GEOMETRY_PARTS = ("teacher", "validator", "cross-view", "cameras")
STEP_PARTS = ("vision", "projector", "language", "grounding", *GEOMETRY_PARTS, LOSSES, OTHER)


def _attention_operations(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_operations(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


# Torch counts the attention kernels of GPUs alone.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_operations,
}


def count_parameters(model: nn.Module, trainable: bool = False) -> dict[str, int]:
    """Return the parameters of each part of `PARTS`, adapters included, or only the trained ones."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or not trainable:
            counts[find_part(name)] += parameter.numel()
    return counts


class StepRecorder(TorchDispatchMode):
    """Mode that counts operations and memory in its context, on real or on fake tensors.

    Operations are those of matrix products, convolutions and attention (a causal one counts in full), forward,
    backward and recomputation together. Memory is that of tensors made in the context. Weights, buffers, older
    tensors and the workspace of kernels do not count.

    A backward pass belongs to the part whose forward pass it follows.

    Args:
        model: Training model whose parts are told apart.
        gradient_share: Share of the gradients of weights that a process holds, below 1 where processes split them.

    Attributes:
        operations: Operations by part of `STEP_PARTS`.
        peak: Most bytes that were held at once.
        peak_parts: Bytes of the peak by the part that made them; gradients of weights stand under "gradients".
        scale: Factor of the size of real tensors in "losses", where they stand for larger ones; see `fake_step`.
    """

    def __init__(self, model: IDE3DForConditionalGenerationWithGeometry, gradient_share: float = 1.0):
        super().__init__()
        self.model = model
        self.criterion = model.criterion
        self.gradient_share = gradient_share
        self.operations: Counter[str] = Counter()
        self.peak = 0.0
        self.peak_parts: dict[str, float] = {}
        self.scale = 1
        self._bytes: Counter[str] = Counter()
        # By `id` of a storage: a weak reference that tells when it is freed, its bytes, and what they belong to.
        self._held: dict[int, tuple[Any, float, str]] = {}
        self._known: dict[int, Any] = {}
        self._stack = [OTHER]
        self._changes: tuple[list[int], list[str]] = ([0], [OTHER])
        self._hooks: list[Any] = []

    def __enter__(self) -> "StepRecorder":
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            self.ignore(tensor)
        core, head = self.model.model, self.model.geometric_validator
        modules = {
            "vision": [core.vision_tower],
            "projector": [core.multi_modal_projector],
            "language": [core.language_model, self.model.lm_head],
            "grounding": [self.model.grounding_head],
            "teacher": [self.model.teacher_projector],
            "validator": [head],
            "cross-view": [None if head is None else head.decoder],
            "cameras": [self.model.pose_head, self.model.scale_head],
        }
        if isinstance(self.criterion, GeometryCriterion):
            modules[LOSSES] = [self.criterion]
            modules["teacher"].append(self.criterion.distillation_loss)
            modules["cameras"] += [self.criterion.pose_loss, self.criterion.scale_loss]
            modules["grounding"].append(self.criterion.grounding_loss)
        for part, members in modules.items():
            for module in filter(None, members):
                self._hooks.append(module.register_forward_pre_hook(partial(self._enter_part, part)))
                self._hooks.append(module.register_forward_hook(self._leave_part, always_call=True))
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                self._hooks.append(parameter.register_post_accumulate_grad_hook(self.mark_gradient))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        part = self._current_part()
        tensors = [value for value in tree_iter(out) if isinstance(value, Tensor)]
        is_real = part == LOSSES and not any(isinstance(tensor, FakeTensor) for tensor in tensors)
        scale = self.scale if is_real else 1
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.operations[part] += scale * formula(*args, **kwargs, out_val=out)
        for tensor in tensors:
            self._hold(tensor, part, scale)
        return out

    def ignore(self, tensor: Tensor) -> None:
        """Leave a tensor out of the memory, as one that was there before."""
        storage = tensor.untyped_storage()
        self._known[id(storage)] = storage

    def mark_gradient(self, parameter: Tensor) -> None:
        """Count the gradient of a weight as that, whichever part made it."""
        storage = parameter.grad.untyped_storage()
        reference, size, label = self._held.get(id(storage), (None, 0.0, GRADIENTS))
        if reference is None:
            self._hold(parameter.grad, GRADIENTS, 1)
        elif label != GRADIENTS:
            self._bytes[label] -= size
            self._held[id(storage)] = (reference, size, GRADIENTS)
            self._bytes[GRADIENTS] += size

    def _hold(self, tensor: Tensor, label: str, scale: int) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._held or key in self._known:
            return
        size = storage.nbytes() * scale
        self._held[key] = (weakref.ref(storage, partial(self._release, key)), size, label)
        self._bytes[label] += size
        held = self._bytes.total() - (1 - self.gradient_share) * self._bytes[GRADIENTS]
        if held > self.peak:
            self.peak = held
            self.peak_parts = {**self._bytes, GRADIENTS: self.gradient_share * self._bytes[GRADIENTS]}

    def _release(self, key: int, _: Any) -> None:
        _, size, label = self._held.pop(key)
        self._bytes[label] -= size

    def _current_part(self) -> str:
        node = torch._C._current_autograd_node()
        if node is None:
            return self._stack[-1]
        numbers, parts = self._changes
        return parts[bisect_right(numbers, node._sequence_nr()) - 1]

    def _enter_part(self, part: str, module: nn.Module, _: Any) -> None:
        if torch._C._current_autograd_node() is None:  # not when activation checkpointing runs the module again
            # The decoder runs inside the validator for the own view, beside it for the other one.
            is_own_view = part == "cross-view" and self._stack[-1] == "validator"
            self._change_part([*self._stack, "validator" if is_own_view else part])

    def _leave_part(self, *_: Any) -> None:
        if torch._C._current_autograd_node() is None:
            self._change_part(self._stack[:-1])

    def _change_part(self, stack: list[str]) -> None:
        self._stack = stack
        self._changes[0].append(torch.autograd._get_sequence_nr())
        self._changes[1].append(stack[-1])


__all__ = ["GEOMETRY_PARTS", "GRADIENTS", "OTHER", "STEP_PARTS", "StepRecorder", "count_parameters"]
