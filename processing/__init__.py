"""Inputs of the model: frames, chats, posed videos, rooms. `IDE3DProcessor` turns them into tensors."""

import lazy_loader

from processing.moved import MOVED_MODULES, MovedModules

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

MovedModules(MOVED_MODULES).install()
