"""Pictures of answers that name a place: frames with regions and boxes, pages and files in 3D."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
