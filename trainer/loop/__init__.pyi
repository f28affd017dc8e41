from .adapters import add_adapters as add_adapters
from .adapters import merge_adapters as merge_adapters
from .benchmark_mixture import build_benchmark_mixture as build_benchmark_mixture
from .chat_stream import ChatStream as ChatStream
from .chat_stream import StreamCollator as StreamCollator
from .checkpoints import get_last_checkpoint as get_last_checkpoint
from .mixture import MixtureDataset as MixtureDataset
from .mixture import MixtureSampler as MixtureSampler
