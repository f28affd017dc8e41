"""Original checkpoints (LLaVA-Video-Qwen2, Video-3D-LLM, 3DRS, 3D-IDE) to this model and back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
