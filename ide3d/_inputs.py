"""Public names of what goes in; a stub of `lazy_loader` reaches modules of its own package only."""

from processing import IDE3DProcessor, IDE3DVideoProcessor, PosedVideo, TokenGrid
from processing.rooms import load_rooms

__all__ = ["IDE3DProcessor", "IDE3DVideoProcessor", "PosedVideo", "TokenGrid", "load_rooms"]
