"""Training-only heads on the visual tokens of frames: relative poses of cameras, and the metric scale of a video."""

import torch
from torch import nn

POSE_SIZE = 9  # Translation over the mean depth, first and second column of the rotation.
WIDTH = 256


class StateHead(nn.Module):
    """Numbers from states: norm - linear - GELU - linear.

    Args:
        state_size: Width of the states.
        output_size: Number of outputs.

    Shape:
        states: (..., state_size).
        output: (..., output_size).
    """

    def __init__(self, state_size: int, output_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(state_size)
        self.linear_1 = nn.Linear(state_size, WIDTH)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(WIDTH, output_size)
        self.apply(self.reset_layer)

    def reset_layer(self, layer: nn.Module) -> None:
        """Initialise a layer of this module; the first outputs are near to zero."""
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Compute the outputs; shapes as in the class."""
        states = states.to(self.linear_1.weight.dtype)
        return self.linear_2(self.act(self.linear_1(self.norm(states))))


class PoseHead(StateHead):
    """Pose of one frame's camera in the frame of another, from the states of both.

    Layers: norm - linear - GELU - linear.

    Source: GeoVR (arXiv 2606.05833) and Cambrian-P (arXiv 2605.22819) predict camera poses from a language model.
    Differs: a frame is the mean of its visual tokens, and any frame may be the reference.

    Args:
        hidden_size: Width of the states.

    Shape:
        source, target: (N, hidden_size), mean states of the frames of each pair.
        output:         (N, 9), float; motion from the source camera's frame to the target camera's frame: translation
                        over the mean depth of the video, then the first two columns of the rotation.
    """

    def __init__(self, hidden_size: int):
        super().__init__(2 * hidden_size, POSE_SIZE)

    def reset_layer(self, layer: nn.Module) -> None:
        """Initialise a layer of this module; the first prediction is near to no motion."""
        super().reset_layer(layer)
        if layer is self.linear_2:
            with torch.no_grad():
                layer.bias[[3, 7]] = 1.0

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Predict the poses; shapes as in the class."""
        return super().forward(torch.cat((source, target), dim=-1))


class ScaleHead(StateHead):
    """Logarithm of the mean depth of a video, from its states.

    Layers: norm - linear - GELU - linear.

    Source: GeoVR (arXiv 2606.05833) predicts a metric scale factor. Differs: the scale is the mean depth in metres.

    Args:
        hidden_size: Width of the states.

    Shape:
        states: (videos, hidden_size), mean states of the visual tokens of each video.
        output: (videos,), float, logarithm of metres.
    """

    def __init__(self, hidden_size: int):
        super().__init__(hidden_size, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Predict the scales; shapes as in the class."""
        return super().forward(states).squeeze(-1)


class LayerHead(nn.Module):
    """Head of a hidden state other than the final one.

    The names of its weights name the state: those of a head that read another one do not fit.

    Args:
        layer: Name of the state, such as `vision.6`.
        head: The head.
    """

    def __init__(self, layer: str, head: StateHead):
        super().__init__()
        self.key = layer.replace(".", "_")  # names of modules have no dots
        self.add_module(self.key, head)

    def reset_layer(self, layer: nn.Module) -> None:
        """Initialise a layer of the head."""
        self._modules[self.key].reset_layer(layer)

    def forward(self, *states: torch.Tensor) -> torch.Tensor:
        """Compute what the head computes."""
        return self._modules[self.key](*states)


__all__ = ["LayerHead", "PoseHead", "ScaleHead"]
