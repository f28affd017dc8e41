"""The names that other code, the documentation and users rely on."""

import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

PUBLIC_NAMES = {
    "ide3d": ["IDE3DProcessor", "IDE3DTrainer", "SceneSession", "load_rooms", "nano_model", "open_video"],
    "modeling_ide3d": ["IDE3DConfig", "IDE3DForConditionalGeneration", "IDE3DModel"],
    "modeling_ide3d.auxiliary": [
        "GeometricValidator",
        "IDE3DForConditionalGenerationWithGeometry",
        "TeacherProjector",
        "load_converted_for_training",
    ],
    "modeling_ide3d.conversion": ["convert_checkpoint", "restore_checkpoint"],
    "modeling_ide3d.convert_llava_qwen": ["convert_checkpoint"],
    "modeling_ide3d.restore_llava_qwen": ["restore_checkpoint"],
    "processing": ["IDE3DProcessor", "IDE3DVideoProcessor", "PosedVideo", "TokenGrid"],
    "processing.benchmarks": ["build_chat", "build_prompt", "load_scene", "load_task"],
    "processing.captures": ["Capture", "find_capture", "list_captures", "open_capture"],
    "processing.chats": ["Chat", "examine_chats", "load_chats", "parse_chat", "read_media", "stream_chats"],
    "processing.proposals": ["ClusterProposer", "Mark", "RegionProposals", "TokenClusters"],
    "processing.rooms": ["load_rooms"],
    "trainer": [
        "GeometrySupervision",
        "IDE3DDataCollator",
        "IDE3DTrainer",
        "IDE3DTrainingArguments",
        "export_inference_model",
    ],
    "trainer.drawing": ["Cameras", "Drawing", "ObjectMark", "PointCloud", "WorldBox", "draw_found", "save_drawing"],
    "trainer.evaluation": ["EvaluationSettings", "load_metric", "run_evaluation", "score_answers"],
    "trainer.geometry": [
        "FramePairs",
        "covisibility_mask",
        "project_points",
        "relative_pose",
        "scale_intrinsics",
        "select_frame_pairs",
        "unproject_depth",
    ],
    "trainer.losses": ["CrossViewDepthLoss", "DepthRegressionLoss", "FeatureDistillationLoss", "RegionContrastLoss"],
    "trainer.recipes": ["DataArguments", "ModelArguments", "dry_run", "read_recipe", "run_recipe", "train"],
    "trainer.session": ["SceneAnswer", "SceneSession", "VideoScene", "load_inference_model", "open_video"],
    "trainer.supervision": ["GeometrySupervision", "SupervisedTrainer"],
    "trainer.teachers": ["PointMapTeacher", "Teacher", "TeacherStore", "TransformersTeacher", "load_teacher"],
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC_NAMES.items() for name in names]
)
def test_public_name_is_importable_and_in_all(module, name):
    imported = importlib.import_module(module)
    assert callable(getattr(imported, name))
    assert name in imported.__all__


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_all_names_what_exists(module):
    imported = importlib.import_module(module)
    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_modules_come_from_this_repository(module):
    """`trainer` and `processing` are common names, and tests/ has folders of the same names."""
    file = Path(importlib.import_module(module).__file__).resolve()
    location = module.replace(".", "/")
    assert file in (REPOSITORY / location / "__init__.py", REPOSITORY / f"{location}.py")
