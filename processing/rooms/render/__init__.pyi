from .images import Rendering as Rendering
from .images import pinhole_view as pinhole_view
from .images import primitive_table as primitive_table
from .images import render as render
