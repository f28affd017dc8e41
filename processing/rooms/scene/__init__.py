"""Rooms as geometry: where furniture stands, what it is built of, where the camera walks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
