"""Parts of the training loop: checks, model parts, statistics, mixtures, adapters, checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
