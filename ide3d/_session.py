"""Public names of inference on one scene."""

from trainer.session import SceneSession, open_video

__all__ = ["SceneSession", "open_video"]
