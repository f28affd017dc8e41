"""How it is measured: scenes that answer many questions, metrics, and the runner over the benchmarks.

`SceneSession` serves anyone with a video; `python -m trainer.evaluation` runs a benchmark, and `run_evaluation` is the
same from Python; `load_metric` gives the metrics, which are `evaluate` modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
