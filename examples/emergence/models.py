"""Build processor, teacher and models of a study, and load trained ones."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import set_seed

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from processing.token_grid import TokenGrid
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.teachers import FrameSource
from trainer.teachers.point_map import PointMapTeacher

from .files import RunFiles
from .questions import study_texts
from .recipe import VISION_LAYERS, Arm, Study

__all__ = ["VideoScaleTeacher", "build_model", "build_processor", "build_teacher", "load_run", "study_grid"]

# Distances between the seeds of the first weights and of heads that only some arms have.
HEAD_SEEDS = {"teacher_projector": 10_000, "pose_head": 20_000, "scale_head": 30_000, "normals": 40_000}


class VideoScaleTeacher(PointMapTeacher):
    """Point map of geometry whose scale is unknown, in the scale of the video.

    Its unit is half the median depth, which the collator makes 2 in pseudo geometry. `PointMapTeacher` gives no
    features of such geometry, because its waves are in metres. A network that makes point maps from pictures gives
    some, in a unit of its own.
    """

    name = "point map (analytic), in the scale of the video"

    def compute_features(
        self,
        frames: object,
        geometry: dict[str, Tensor] | None,
        grid: TokenGrid,
        source: FrameSource | None = None,
    ) -> Tensor | None:
        """Compute the features of one video; arguments, shapes and output as in `PointMapTeacher`."""
        known = None if geometry is None else {key: geometry[key] for key in geometry if key != "depth_alignment"}
        return super().compute_features(frames, known, grid, source)


def study_grid(study: Study) -> TokenGrid:
    """Return the token grid of the models."""
    return TokenGrid(study.image_size, study.patch_size, 1)


def build_processor(study: Study) -> IDE3DProcessor:
    """Build the processor, which all runs share: its words do not depend on the rooms."""
    return build_nano_processor(
        study_texts(), image_size=study.image_size, patch_size=study.patch_size, num_frames=study.num_frames
    )


def build_teacher(study: Study, arm: Arm | None = None) -> PointMapTeacher:
    """Build the analytic teacher of an arm; None: that of measured geometry."""
    kind = VideoScaleTeacher if arm is not None and arm.pseudo else PointMapTeacher
    return kind(study.teacher_wavelengths, study.teacher_camera)


def build_model(
    study: Study, arm: Arm, seed: int, processor: IDE3DProcessor
) -> IDE3DForConditionalGenerationWithGeometry:
    """Build the training model with the initial weights of a seed.

    Validator and projector are there and idle in an arm that does not use them. Heads of cameras, and projectors of
    `Arm.layers`, are there where they are used: each has random numbers of its own, so that all other weights are
    those of the other arms.
    """
    set_seed(seed)
    config = build_nano_config(
        processor, hidden_size=study.hidden_size, vision_layers=VISION_LAYERS, text_layers=study.text_layers
    )
    model = build_nano_model(
        config,
        teacher_size=build_teacher(study).feature_size,
        validator={"output_stride": 2, "protocol": "clean", **arm.validator},
    )
    if arm.layers or arm.camera_layer:
        set_seed(seed + HEAD_SEEDS["teacher_projector"])
        model.read_layers(arm.layers or None, arm.camera_layer)
    for name, weight in (("pose_head", arm.pose), ("scale_head", arm.scale)):
        if weight:
            set_seed(seed + HEAD_SEEDS[name])
            model.add_camera_head(name)
    return model


def load_run(
    study: Study, arm: str, seed: int, processor: IDE3DProcessor
) -> IDE3DForConditionalGenerationWithGeometry:
    """Load the training model of an arm and a seed with its trained weights."""
    model = build_model(study, study.rows[arm], seed, processor)
    model.load_state_dict(load_file(RunFiles(Path(study.output_dir), arm, seed).weights), strict=True)
    return model
