"""Depth Anything 3 as a teacher, by the package that its authors publish."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from processing.token_pooling import WHOLE_FRAME, Window
from trainer.geometry.checks import Protocol
from trainer.teachers.patch_teacher import PatchTeacher, find_licence, short_name, weights_digest

__all__ = ["DepthAnything3Teacher"]

PACKAGE = "depth-anything-3"
# As the package's README states them.
LICENCES = {
    f"depth-anything/{name}": licence
    for licence, names in {
        "apache-2.0": ("DA3-SMALL", "DA3-BASE", "DA3METRIC-LARGE", "DA3MONO-LARGE"),
        "cc-by-nc-4.0": (
            "DA3-LARGE",
            "DA3-LARGE-1.1",
            "DA3-GIANT",
            "DA3-GIANT-1.1",
            "DA3NESTED-GIANT-LARGE",
            "DA3NESTED-GIANT-LARGE-1.1",
        ),
    }.items()
    for name in names
}


class DepthAnything3Teacher(PatchTeacher):
    """Patch features of Depth Anything 3, from all frames of a video at once.

    The package (docs/teachers.md says how to install it) resizes whole frames so that the longer side has
    `process_res` pixels and both are multiples of 14. Features are those of one layer of its backbone behind the layer
    norm, as its `inference(export_feat_layers=...)` gives them. The first frame is the reference view: for other
    choices version 0.1.1 returns these features in the order that it sorted the frames into.

    Version 0.1.1 was run with random weights of its smallest model; the tests use a stand-in with its interface. No
    released weights were run.

    Args:
        weights: Hub name, or a folder with `config.json` and `model.safetensors`.
        licence: Licence of the weights; None: as known for the Hub names of the authors, or as the model card says.
        layer: Layer of the backbone, from 0; None: the last one that its own heads read.
        process_res: Longer side of the input in pixels.
        device: Device of the network.
        protocol: Rule that pools patches, see `pool_teacher_features`.

    Raises:
        ImportError: If the package, or one that it needs, is not installed.
        ValueError: If no licence is stated, or `layer` is None for a model whose configuration does not name layers.
    """

    def __init__(
        self,
        weights: str | Path = "depth-anything/DA3-BASE",
        *,
        licence: str | None = None,
        layer: int | None = None,
        process_res: int = 504,
        device: str | torch.device = "cpu",
        protocol: Protocol = "clean",
    ):
        try:
            from depth_anything_3.api import DepthAnything3
        except ImportError as error:
            raise ImportError(
                f"Depth Anything 3 is not installed, or not wholly ({error}). It forces a NumPy that breaks newer "
                f'packages, so make an environment of its own: `pip install . {PACKAGE} addict "pyarrow<25"` in a '
                "clone of this repository. Extraction is the only step that needs it; see docs/teachers.md."
            ) from error
        licence = find_licence(weights, licence, LICENCES)
        self.network = DepthAnything3.from_pretrained(str(weights)).to(device).eval().requires_grad_(False)
        self.layer = _last_layer(self.network.config) if layer is None else layer
        self.process_res = process_res
        super().__init__(
            name=short_name(weights),
            version=f"{weights_digest(self.network)}, layer {self.layer}, {PACKAGE} {_package_version()}",
            licence=licence,
            preprocessing=f"whole frames, longer side {process_res} px, upper_bound_resize, first frame as reference",
            protocol=protocol,
        )

    def compute_patches(self, pixels: Tensor) -> tuple[Tensor, Window]:
        """Compute features of patches; see `PatchTeacher`."""
        prediction = self.network.inference(
            list(pixels.permute(0, 2, 3, 1).cpu().numpy()),
            process_res=self.process_res,
            process_res_method="upper_bound_resize",
            ref_view_strategy="first",
            export_feat_layers=[self.layer],
        )
        key = f"feat_layer_{self.layer}"
        if key not in prediction.aux:
            raise ValueError(f"{self.name} gave no features of layer {self.layer}, but {sorted(prediction.aux)}.")
        patches = torch.from_numpy(prediction.aux[key])
        # The package drops the axis of the batch, of one video, by `squeeze`.
        patches = patches if patches.dim() == 4 else patches.reshape(len(pixels), *patches.shape[-3:])
        return patches, WHOLE_FRAME


def _last_layer(config: Any) -> int:
    """Return the last layer that the heads read, by the configuration of the package."""
    try:
        return int(config["net"]["out_layers"][-1])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("This model's configuration names no layers (`net.out_layers`): give `layer`.") from error


def _package_version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:  # a checkout on the path
        return "from source"
