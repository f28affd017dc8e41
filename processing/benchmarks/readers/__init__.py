"""Readers of the public benchmark folders: annotations, scenes, boxes, stored teacher features."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
