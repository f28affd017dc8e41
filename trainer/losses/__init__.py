"""Losses: tensors in, one unweighted scalar out, computed in float32. No loss has weights or reads a config."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
