"""Training by a recipe: a YAML file of arguments in, a trained model and its export out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
