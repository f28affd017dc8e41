"""Geometry supervision for any model: heads beside it, hooks in it, loss terms from both."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
