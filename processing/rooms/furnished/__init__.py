"""Furniture as meshes: pieces, their casts and their light."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
