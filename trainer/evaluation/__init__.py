"""Measurement: metrics, the runner over the benchmarks, reports, probes.

`run_evaluation` runs a benchmark, `python -m trainer.evaluation` does the same from a shell, and `load_metric` gives
the metrics, which are `evaluate` modules.
"""

import lazy_loader

from processing.moved import keep_names

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = keep_names(__name__, dict.fromkeys(("SceneAnswer", "SceneSession"), "trainer.session"), _get)
