"""Hooks that keep, of a training pass of somebody else's model, what the geometry supervision compares."""

import functools
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from modeling_ide3d.auxiliary.state_layers import LANGUAGE, VISION, split_layer
from trainer.supervision.vision_layouts import VisionLayout


@dataclass
class ForwardPass:
    """Record of one forward pass.

    Args:
        arguments: Given arguments of the base model that the layout needs.
        video_call: Number of the tower's call for videos, from 1.
        tower_calls: Calls of the tower so far.
        states: Hidden states by name, those that were wanted, see `StateLayers`.
        final_states: Final states of the language model, (B, L, hidden_size).
    """

    arguments: dict[str, Any]
    video_call: int
    tower_calls: int = 0
    states: dict[str, Tensor] = field(default_factory=dict)
    final_states: Tensor | None = None


class ForwardRecorder:
    """Hooks in a model that record its last pass in training mode and with gradients.

    Args:
        model: Base model, e.g. `Qwen2_5_VLModel`.
        layout: Places of its states.
        layers: Names of the wanted hidden states, see `StateLayers`; the language model's final ones always are.

    Raises:
        ValueError: If the model has a recorder already, or is not built as the layout says.
    """

    def __init__(self, model: nn.Module, layout: VisionLayout, layers: Iterable[str]):
        owners = [getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values()]
        if any(isinstance(owner, ForwardRecorder) and owner.is_attached for owner in owners):
            raise ValueError(f"This {type(model).__name__} has a geometry supervision already: detach that one first.")
        tower, language_model = (layout.find_module(model, name) for name in ("tower", "language_model"))
        wanted: dict[str, set[int]] = {VISION: set(), LANGUAGE: set()}
        for part, number in map(split_layer, layers):
            wanted[part].add(number)
        blocks = self._find_blocks(model, layout, "blocks", max(wanted[VISION], default=0))
        self.layout = layout
        self._running: ForwardPass | None = None
        self._recorded: ForwardPass | None = None
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end, always_call=True),
            tower.register_forward_pre_hook(self._count_tower_call),
            language_model.register_forward_hook(self._record_final_states),
        ]
        for index in sorted(wanted[VISION]):
            hook = functools.partial(self._record_states, index)
            if index == 0:
                self._handles.append(blocks[0].register_forward_pre_hook(hook))
            else:
                self._handles.append(blocks[index - 1].register_forward_hook(hook))
        # What enters a layer, not what leaves the one before: Qwen3-VL adds features of the tower between them.
        # The states behind the last layer, and behind its norm, are the final ones.
        if wanted[LANGUAGE]:
            blocks = self._find_blocks(model, layout, "language_blocks", max(wanted[LANGUAGE]))
            for index in sorted(wanted[LANGUAGE] - {len(blocks)}):
                hook = functools.partial(self._record_inner_states, index)
                self._handles.append(blocks[index].register_forward_pre_hook(hook, with_kwargs=True))

    @staticmethod
    def _find_blocks(model: nn.Module, layout: VisionLayout, field_name: str, least: int) -> nn.ModuleList:
        blocks = layout.find_module(model, field_name)
        if not isinstance(blocks, nn.ModuleList) or len(blocks) < least:
            raise ValueError(
                f"The layout has {field_name}={getattr(layout, field_name)!r}, which must be a ModuleList of at least "
                f"{least} layers; got {type(blocks).__name__} of {len(list(blocks.children()))}."
            )
        return blocks

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the model takes copies of the hooks along, which nobody could take out again: they do nothing.
        return {**self.__dict__, "_handles": [], "_running": None, "_recorded": None}

    @property
    def is_attached(self) -> bool:
        """Whether the hooks are in the model."""
        return bool(self._handles)

    def is_of(self, module: nn.Module) -> bool:
        """Say whether a module is the base model with these hooks."""
        return any(getattr(hook, "__self__", None) is self for hook in module._forward_pre_hooks.values())

    def remove(self) -> None:
        """Take the hooks out of the model and forget what they recorded."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._running, self._recorded = [], None, None

    def take(self) -> ForwardPass | None:
        """The last pass, once: what it keeps alive is freed with it."""
        recorded, self._recorded = self._recorded, None
        return recorded

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._running = None
        if not (self.is_attached and module.training and torch.is_grad_enabled()):
            return
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        wanted = {"input_ids", self.layout.pixels, self.layout.grid_thw}
        # Where images have an argument of their own, they are encoded before the videos.
        has_images = self.layout.pixels != "pixel_values" and given.get("pixel_values") is not None
        arguments = {name: value for name, value in given.items() if name in wanted and value is not None}
        self._running = ForwardPass(arguments, video_call=2 if has_images else 1)

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self._running is not None and output is not None:  # None: the pass raised
            self._recorded = self._running
        self._running = None

    def _count_tower_call(self, module: nn.Module, args: tuple) -> None:
        if self._running is not None:
            self._running.tower_calls += 1

    def _record_states(self, index: int, module: nn.Module, args: tuple, *outputs: Any) -> None:
        running = self._running
        if running is None or running.tower_calls != running.video_call:
            return
        states = args[0] if index == 0 else outputs[0]
        states = states[0] if isinstance(states, tuple) else states
        if index and not states.requires_grad and any(weight.requires_grad for weight in module.parameters()):
            raise RuntimeError(
                "The vision tower ran without gradients, although its weights are trained: the depth terms would not "
                "reach them. Checkpoint activations with use_reentrant=False, or freeze the tower by "
                "requires_grad_(False)."
            )
        running.states[f"{VISION}.{index}"] = states

    def _record_inner_states(self, index: int, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if self._running is not None:
            self._running.states[f"{LANGUAGE}.{index}"] = args[0] if args else kwargs["hidden_states"]

    def _record_final_states(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self._running is not None:
            self._running.final_states = output[0]


__all__ = ["ForwardPass", "ForwardRecorder"]
