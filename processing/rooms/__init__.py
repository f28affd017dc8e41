"""Procedural furnished rooms: posed RGB-D video with questions, the embedded default data."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
