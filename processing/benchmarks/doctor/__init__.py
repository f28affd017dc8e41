"""Diagnosis of a benchmark folder: what can be used, what is missing or broken, how to mend it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
