"""Regions of a video from its pictures alone: by a model's own tokens, by words, or from a person's mark."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
