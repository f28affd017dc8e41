"""Weights that exist in training only: no exported file may import this package."""

from modeling_ide3d.auxiliary.geometric_validator import (
    GeometricValidator,
    GeometricValidatorConfig,
    GeometricValidatorOutput,
)
from modeling_ide3d.auxiliary.modeling_ide3d_geometry import (
    IDE3DForConditionalGenerationWithGeometry,
    IDE3DGeometryOutputWithPast,
)
from modeling_ide3d.auxiliary.original_geometry import load_converted_for_training, read_original_geometry
from modeling_ide3d.auxiliary.teacher_projector import TeacherProjector, TeacherProjectorConfig

__all__ = [
    "GeometricValidator",
    "GeometricValidatorConfig",
    "GeometricValidatorOutput",
    "IDE3DForConditionalGenerationWithGeometry",
    "IDE3DGeometryOutputWithPast",
    "TeacherProjector",
    "TeacherProjectorConfig",
    "load_converted_for_training",
    "read_original_geometry",
]
