from .layout import Room as Room
from .layout import RoomObject as RoomObject
from .layout import build_room as build_room
from .styles import STYLES as STYLES
from .styles import Style as Style
