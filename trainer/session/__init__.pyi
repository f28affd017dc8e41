from .decoding import SceneAnswer as SceneAnswer
from .memory import MemoryPlan as MemoryPlan
from .region_reading import answer_from_regions as answer_from_regions
from .region_reading import pool_sample_regions as pool_sample_regions
from .scene_session import SceneSession as SceneSession
