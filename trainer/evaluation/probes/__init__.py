"""Probes of frozen tokens: what a linear reader finds of depth, position and correspondence in them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
