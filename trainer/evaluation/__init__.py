"""How it is measured: scenes that answer many questions, metrics, and the runner over the benchmarks.

`SceneSession` serves anyone with a video; `python -m trainer.evaluation` runs a benchmark, and `run_evaluation` is the
same from Python; `load_metric` gives the metrics, which are `evaluate` modules.
"""

from trainer.evaluation.metrics import METRICS, load_metric
from trainer.evaluation.runner import EvaluationSettings, run_evaluation, score_answers
from trainer.evaluation.scene_session import SceneAnswer, SceneSession

__all__ = [
    "METRICS",
    "EvaluationSettings",
    "SceneAnswer",
    "SceneSession",
    "load_metric",
    "run_evaluation",
    "score_answers",
]
