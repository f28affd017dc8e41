from .dataset import load_rooms as load_rooms
from .questions.scoring import score_answer as score_answer
from .questions.wording import TYPES as TYPES
from .samples import room_samples as room_samples
from .sharing import export_room_dataset as export_room_dataset
