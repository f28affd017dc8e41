"""The door: names that most programs need, the `ide3d` command, the nano model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
