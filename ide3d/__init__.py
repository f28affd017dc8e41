"""How a person reaches it: the names that most programs need, the `ide3d` command, and the shipped nano model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
