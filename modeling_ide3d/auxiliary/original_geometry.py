"""Training-only weights of the original, kept aside by a conversion, in the training class."""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from modeling_ide3d.auxiliary import geometric_validator, teacher_projector
from modeling_ide3d.auxiliary.geometric_validator import GeometricValidatorConfig
from modeling_ide3d.auxiliary.modeling_ide3d_geometry import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.configuration_ide3d import IDE3DConfig

logger = logging.getLogger(__name__)

# The same as in `conversion/names.py`, which nothing here may import.
TRAINING_ONLY_FILE = "training_only/original_geometry_modules.safetensors"


def read_original_geometry(file: str | Path) -> dict[str, torch.Tensor]:
    """The original's `dpt_module` and `proj_3d` under the names of the training class.

    Args:
        file: `training_only/original_geometry_modules.safetensors` of a converted folder.

    Returns:
        What `load_geometry_state_dict` takes. The three further layers of 3DRS have no counterpart and are left out.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, or holds a name that is not one of the original's.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"{file} does not exist: the original checkpoint had no training-only weights. Build the heads with "
            "from_pretrained(..., validator_config=..., teacher_size=...)."
        )
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file ({error}). Convert again.") from error
    decoder = {key: tensor for key, tensor in weights.items() if ".dpt_module." in key}
    converted = {
        f"geometric_validator.{name}": tensor
        for name, tensor in geometric_validator.convert_original_state_dict(decoder).items()
    }
    for key, tensor in weights.items():
        if ".proj_3d." in key:
            converted[f"teacher_projector.{teacher_projector.rename_original_key(key)}"] = tensor
    left_out = sorted(weights.keys() - decoder.keys() - {key for key in weights if ".proj_3d." in key})
    if left_out:
        logger.warning("%s holds weights that no head here has; they were left out: %s", file, left_out)
    return converted


def load_converted_for_training(
    folder: str | Path, layer_indices: tuple[int, ...] | None = None, **kwargs
) -> IDE3DForConditionalGenerationWithGeometry:
    """Training model of a converted checkpoint, with the heads that the original trained beside it.

    Args:
        folder: Folder that `convert_checkpoint` wrote from a checkpoint with training-only weights (3D-IDE, 3DRS).
        layer_indices: Hidden states of the vision tower that the depth decoder reads. Default: the original's, or
            those at the same relative depth of a tower of other size.
        **kwargs: Passed on to `from_pretrained`.

    Raises:
        FileNotFoundError: The folder keeps no training-only weights.
        ValueError: Their file is damaged, or they do not fit each other.
    """
    config = IDE3DConfig.from_pretrained(folder)
    heads = read_original_geometry(Path(folder) / TRAINING_ONLY_FILE)
    decoder = {
        key.removeprefix("geometric_validator."): tensor
        for key, tensor in heads.items()
        if key.startswith("geometric_validator.")
    }
    validator_config = None
    if decoder:
        default = GeometricValidatorConfig.from_vision_config(config.vision_config)
        validator_config = GeometricValidatorConfig.from_state_dict(
            decoder, patch_size=default.patch_size, layer_indices=layer_indices or default.layer_indices
        )
    projection = heads.get("teacher_projector.linear_2.weight")
    model = IDE3DForConditionalGenerationWithGeometry.from_pretrained(
        folder,
        validator_config=validator_config,
        teacher_size=None if projection is None else projection.shape[0],
        **kwargs,
    )
    model.load_geometry_state_dict(heads)
    return model


__all__ = ["load_converted_for_training", "read_original_geometry"]
