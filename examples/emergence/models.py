"""Build processor, teacher and models of a study, and load trained ones."""

from pathlib import Path

from safetensors.torch import load_file
from transformers import set_seed

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from processing.token_grid import TokenGrid
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.teachers.point_map import PointMapTeacher

from .files import RunFiles
from .questions import study_texts
from .recipe import Arm, Study

__all__ = ["build_model", "build_processor", "build_teacher", "load_run", "study_grid"]


def study_grid(study: Study) -> TokenGrid:
    """Return the token grid of the models."""
    return TokenGrid(study.image_size, study.patch_size, 1)


def build_processor(study: Study) -> IDE3DProcessor:
    """Build the processor, which all runs share: its words do not depend on the rooms."""
    return build_nano_processor(
        study_texts(), image_size=study.image_size, patch_size=study.patch_size, num_frames=study.num_frames
    )


def build_teacher(study: Study) -> PointMapTeacher:
    """Build the analytic teacher of all arms that have one."""
    return PointMapTeacher(study.teacher_wavelengths, study.teacher_camera)


def build_model(
    study: Study, arm: Arm, seed: int, processor: IDE3DProcessor
) -> IDE3DForConditionalGenerationWithGeometry:
    """Build the training model with the initial weights of a seed.

    Heads that an arm does not use are there and idle.
    """
    set_seed(seed)
    config = build_nano_config(processor, hidden_size=study.hidden_size, text_layers=study.text_layers)
    return build_nano_model(
        config,
        teacher_size=build_teacher(study).feature_size,
        validator={"output_stride": 2, "protocol": "clean", **arm.validator},
    )


def load_run(
    study: Study, arm: str, seed: int, processor: IDE3DProcessor
) -> IDE3DForConditionalGenerationWithGeometry:
    """Load the training model of an arm and a seed with its trained weights."""
    model = build_model(study, study.rows[arm], seed, processor)
    model.load_state_dict(load_file(RunFiles(Path(study.output_dir), arm, seed).weights), strict=True)
    return model
