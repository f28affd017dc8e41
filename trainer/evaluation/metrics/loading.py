"""Load the metrics, which are `evaluate` modules, from this folder."""

from pathlib import Path

import evaluate

__all__ = ["METRICS", "load_metric"]

FOLDER = Path(__file__).parent
METRICS = (
    "boxes_in_words",
    "multi3drefer",
    "nr3d",
    "revsi",
    "scan2cap",
    "scanqa",
    "scanrefer",
    "sqa3d",
    "vsibench",
)


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Load a metric by its name.

    Raises:
        ValueError: If there is no such metric.
    """
    if not isinstance(name, str) or name not in METRICS:
        raise ValueError(f"There is no metric {name!r:.100}, only {', '.join(METRICS)}.")
    return evaluate.load(str(FOLDER / name))
