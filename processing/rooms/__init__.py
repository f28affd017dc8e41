"""Procedural furnished rooms: posed RGB-D video with questions, the embedded default data."""

from processing.rooms.dataset import load_rooms
from processing.rooms.samples import room_samples
from processing.rooms.scoring import score_answer
from processing.rooms.wording import TYPES

__all__ = ["TYPES", "load_rooms", "room_samples", "score_answer"]
