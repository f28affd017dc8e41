"""From scenes to training samples: geometry on the pixels of the vision input, benchmark samples, regions of boxes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
