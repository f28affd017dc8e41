"""Register processor and video processor with the Auto factories.

They are registered by model type, not by config class, because this package does not know the model. A folder without
code files then loads by `AutoProcessor.from_pretrained`.
"""

from transformers import AutoProcessor, AutoVideoProcessor

from processing.processing_ide3d import IDE3DProcessor
from processing.video_processing_ide3d import IDE3DVideoProcessor

__all__ = ["IDE3DProcessor", "IDE3DVideoProcessor"]

AutoVideoProcessor.register("ide3d", IDE3DVideoProcessor, exist_ok=True)
AutoProcessor.register("ide3d", IDE3DProcessor, exist_ok=True)
