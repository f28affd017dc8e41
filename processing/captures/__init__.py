"""Captures: folders and files that cameras, apps and data sets write, each read as a `PosedVideo`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
