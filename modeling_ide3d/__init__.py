"""The 3D-IDE inference model. Importing it registers the classes with the Auto factories."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM

from modeling_ide3d.configuration_ide3d import IDE3DConfig
from modeling_ide3d.modeling_ide3d import IDE3DForConditionalGeneration, IDE3DModel

__all__ = ["IDE3DConfig", "IDE3DForConditionalGeneration", "IDE3DModel"]

AutoConfig.register(IDE3DConfig.model_type, IDE3DConfig, exist_ok=True)
for _auto_class in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    # AutoModel too: its users expect `.generate`.
    _auto_class.register(IDE3DConfig, IDE3DForConditionalGeneration, exist_ok=True)
