from .catalogue import MeshPiece as MeshPiece
from .catalogue import read_catalogue as read_catalogue
from .pieces import furnish as furnish
from .rendering import cast_room as cast_room
from .rendering import render_room as render_room
from .rendering import room_table as room_table
