"""How it is measured: scenes that answer many questions, metrics, and the runner over the benchmarks."""

from trainer.evaluation.scene_session import SceneAnswer, SceneSession

__all__ = ["SceneAnswer", "SceneSession"]
