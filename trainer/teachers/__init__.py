"""Frozen 3D teachers: what the language model's states at the visual tokens are drawn towards.

`Teacher` is what all of them are: frames in, (V, rows, cols, C) out, with name, version and licence. Networks are
slow: `python -m trainer.teachers` stores their features once, and `TeacherStore`, a teacher too, reads them in
training.
"""

from trainer.teachers.depth_anything_3 import DepthAnything3Teacher
from trainer.teachers.extraction import ExtractionReport, extract_features, list_scenes
from trainer.teachers.loading import load_teacher
from trainer.teachers.original import OriginalStoreTeacher
from trainer.teachers.patch_teacher import PatchTeacher
from trainer.teachers.point_map import PointMapTeacher
from trainer.teachers.protocol import FrameSource, Teacher
from trainer.teachers.store import StoreIdentity, TeacherStore
from trainer.teachers.transformers_backbone import TransformersTeacher
from trainer.teachers.vggt import VGGTTeacher

__all__ = [
    "DepthAnything3Teacher",
    "ExtractionReport",
    "FrameSource",
    "OriginalStoreTeacher",
    "PatchTeacher",
    "PointMapTeacher",
    "StoreIdentity",
    "Teacher",
    "TeacherStore",
    "TransformersTeacher",
    "VGGTTeacher",
    "extract_features",
    "list_scenes",
    "load_teacher",
]
