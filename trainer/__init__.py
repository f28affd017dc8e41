"""Training and measurement: trainer, collator, losses, geometry, teachers, evaluation, export."""

import lazy_loader

from processing.moved import MovedModules
from trainer.moved import MOVED_MODULES

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

MovedModules(MOVED_MODULES).install()
