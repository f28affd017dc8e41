"""The forward pass of a compiled model, as Trainer needs it."""

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["with_own_loss"]


def with_own_loss(model: nn.Module) -> Callable[..., Any]:
    """Return the forward pass of a compiled model, with a copy of its loss.

    Trainer scales the loss in place, which the output of a compiled graph does not allow.
    """

    def forward(**inputs: Any) -> Any:
        outputs = model(**inputs)
        if outputs.get("loss") is not None:
            outputs["loss"] = outputs["loss"].clone()
        return outputs

    return forward
