"""Frozen 3D teachers, whose features the language model's visual tokens are trained to match.

`Teacher` is their common interface: frames in, (V, rows, cols, C) out, with name, version and licence. Networks are
slow: `python -m trainer.teachers` stores their features once, and `TeacherStore`, a teacher too, reads them in
training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
