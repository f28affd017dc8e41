"""Estimate of a training step before anything is rented: parameters, memory, operations. Experimental."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
