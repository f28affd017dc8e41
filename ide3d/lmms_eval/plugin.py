"""Entry point of lmms-eval's group `lmms_eval.models`."""

from lmms_eval.models.registry_v2 import ModelManifest

__all__ = ["manifest"]


def manifest() -> ModelManifest:
    """Return the name of our model in lmms-eval, and its class."""
    return ModelManifest(model_id="ide3d", chat_class_path="ide3d.lmms_eval.model.IDE3DChat")
