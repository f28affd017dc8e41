from .benchmark_samples import BenchmarkDataset as BenchmarkDataset
from .chat_samples import ChatDataset as ChatDataset
from .geometry_inputs import prepare_geometry as prepare_geometry
from .scene_regions import RegionSource as RegionSource
from .scene_regions import SceneRegions as SceneRegions
