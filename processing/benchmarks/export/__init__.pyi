from .pickle_free import export_pickle_free as export_pickle_free
from .rooms import export_rooms as export_rooms
