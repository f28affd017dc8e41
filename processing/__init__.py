"""What goes in: frames, chats, posed videos, rooms. `IDE3DProcessor` turns them into the inputs of a model."""

from transformers import AutoProcessor, AutoVideoProcessor

from .posed_video import PosedVideo
from .processing_ide3d import IDE3DProcessor
from .video_processing_ide3d import IDE3DVideoProcessor

# Registered by model type, not by config class: this room does not know the model. It lets `from_pretrained` find the
# classes by name in a folder that carries no code.
AutoVideoProcessor.register("ide3d", IDE3DVideoProcessor, exist_ok=True)
AutoProcessor.register("ide3d", IDE3DProcessor, exist_ok=True)

__all__ = ["IDE3DProcessor", "IDE3DVideoProcessor", "PosedVideo"]
