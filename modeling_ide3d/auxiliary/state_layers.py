"""Hidden states by name, `vision.6` and `language.12`: which there are, how wide they are, and teachers of several."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from modeling_ide3d.auxiliary.teacher_projector import TeacherProjector, TeacherProjectorConfig

__all__ = ["LayerProjectors", "StateLayers", "build_projector", "pool_patches", "split_layer"]

VISION, LANGUAGE = "vision", "language"


@dataclass(frozen=True)
class StateLayers:
    """Hidden states of a model by name, at the tokens of its frames.

    Probes have the same names, see `trainer.evaluation.probes`.

    `vision.k` leaves the k-th layer of the vision tower, on the grid of patches; `vision.0` are the patch embeddings.
    `language.k` leaves the k-th layer of the language model, at the visual tokens. `language.0` is its input, and the
    last one stands behind the final norm.

    Args:
        vision_layers: Layers of the vision tower.
        vision_size: Width of their states.
        language_layers: Layers of the language model.
        language_size: Width of their states.
    """

    vision_layers: int
    vision_size: int
    language_layers: int
    language_size: int

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "StateLayers":
        """Read the sizes from the configuration of a model with vision tower and language model."""
        vision, text = config.vision_config, config.get_text_config()
        return cls(vision.num_hidden_layers, vision.hidden_size, text.num_hidden_layers, text.hidden_size)

    @property
    def final(self) -> str:
        """Name of the language model's final states."""
        return f"{LANGUAGE}.{self.language_layers}"

    def width(self, layer: str) -> int:
        """Return the width of a layer's states."""
        return self.vision_size if layer.startswith(VISION) else self.language_size

    def check(self, layer: str, argument: str) -> None:
        """Raise ValueError unless the model has this hidden state.

        Args:
            layer: Name of the state.
            argument: Argument that it is of, for the message.

        Raises:
            TypeError: If the name is no text.
        """
        if not isinstance(layer, str):
            raise TypeError(f"{argument} takes names such as {self.final!r}, got {reprlib.repr(layer)}.")
        part, _, number = layer.partition(".")
        last = {VISION: self.vision_layers, LANGUAGE: self.language_layers}.get(part, -1)
        if number not in map(str, range(last + 1)):
            raise ValueError(
                f"{argument}: {reprlib.repr(layer)} is no hidden state of this model. Write vision.0 (patch "
                f"embeddings) to vision.{self.vision_layers}, or language.0 (input of the language model) to "
                f"{self.final} (its final states)."
            )

    def check_list(self, layers: Sequence[str], argument: str) -> tuple[str, ...]:
        """Return the names of several hidden states as a tuple.

        Raises:
            TypeError: If they are no list of texts.
            ValueError: If there is none, one comes twice, or the model does not have it.
        """
        if not isinstance(layers, (list, tuple)):
            raise TypeError(
                f"{argument} must be a list of names such as [{self.final!r}], got {reprlib.repr(layers)}."
            )
        for layer in layers:
            self.check(layer, argument)
        if not layers or len(set(layers)) < len(layers):
            raise ValueError(f"{argument} must name at least one hidden state, each once, got {list(layers)}.")
        return tuple(layers)


def split_layer(layer: str) -> tuple[str, int]:
    """Return part ("vision" or "language") and number of a checked name."""
    part, _, number = layer.partition(".")
    return part, int(number)


def pool_patches(states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Average states over the cells of a token grid.

    Each patch counts by the area that it shares with a cell. Teachers are laid on tokens by the same rule, see
    `processing.token_pooling`.

    Shape:
        states: (frames, R, S, C), R x S patches.
        output: (frames, rows, cols, C), rows x cols of `grid`; `states` itself where the grids are one.
    """
    if tuple(states.shape[1:3]) == tuple(grid):
        return states
    of_rows, of_columns = (
        _share_areas(cells, patches).to(states) for cells, patches in zip(grid, states.shape[1:3], strict=True)
    )
    return torch.einsum("js,fisc->fijc", of_columns, torch.einsum("ir,frsc->fisc", of_rows, states))


def _share_areas(cells: int, patches: int) -> torch.Tensor:
    """Return the weight (cells, patches) of patches along an axis; those of a cell sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64, device="cpu") * patches / cells
    starts = torch.arange(patches, dtype=torch.float64, device="cpu")
    upper = torch.minimum(edges[1:, None], starts + 1)
    shared = (upper - torch.maximum(edges[:-1, None], starts)).clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


class LayerProjectors(nn.Module):
    """Projectors of several hidden states into the space of one teacher.

    Each has weights of its own: norm - linear - GELU - linear. States of inner layers have no common scale, the norm
    gives them one.

    Source: GeoVR (arXiv 2606.05833) distils teachers into several layers of the language model. Differs: layers of
    the vision tower too, and each layer's projector is that of 3D-IDE behind a norm.

    Args:
        sizes: Width of the states by name of the layer, in the order of the output.
        teacher_size: Width of the teacher's features.

    Shape:
        states: (frames, R, S, width) by name of the layer, on patches or on visual tokens.
        grid:   rows and columns of the teacher's features, which states on patches are averaged over.
        output: (layers, frames, rows, cols, teacher_size).
    """

    def __init__(self, sizes: Mapping[str, int], teacher_size: int):
        super().__init__()
        self.layers = tuple(sizes)
        self.teacher_size = teacher_size
        configs = {
            layer: TeacherProjectorConfig(hidden_size=sizes[layer], teacher_size=teacher_size) for layer in sizes
        }
        self.norms = nn.ModuleDict({_key(layer): nn.LayerNorm(sizes[layer]) for layer in sizes})
        self.projectors = nn.ModuleDict({_key(layer): TeacherProjector(configs[layer]) for layer in sizes})

    def reset_layer(self, layer: nn.Module) -> None:
        """Initialise a layer of this module as `TeacherProjector` does; norms start as the identity."""
        if isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
        else:
            next(iter(self.projectors.values())).reset_layer(layer)

    def forward(self, states: Mapping[str, torch.Tensor], grid: tuple[int, int]) -> torch.Tensor:
        """Project the states of all layers; shapes as in the class."""
        projected = []
        for layer in self.layers:
            norm, projector = self.norms[_key(layer)], self.projectors[_key(layer)]
            pooled = pool_patches(states[layer], grid)
            projected.append(projector(norm(pooled.to(norm.weight.dtype))))
        return torch.stack(projected)


def _key(layer: str) -> str:
    return layer.replace(".", "_")  # names of modules have no dots


def build_projector(
    sizes: StateLayers, teacher_size: int, layers: Sequence[str]
) -> TeacherProjector | LayerProjectors:
    """Build the projector of checked layers.

    It is the original's for the final states alone, and one with weights for each layer otherwise.
    """
    if tuple(layers) == (sizes.final,):
        return TeacherProjector(TeacherProjectorConfig(hidden_size=sizes.language_size, teacher_size=teacher_size))
    return LayerProjectors({layer: sizes.width(layer) for layer in layers}, teacher_size)
