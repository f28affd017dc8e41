"""Several benchmarks as one training set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processing.token_grid import TokenGrid
from trainer.data.benchmark_samples import BenchmarkDataset
from trainer.loop.mixture import MixtureDataset

__all__ = ["build_benchmark_mixture"]


def build_benchmark_mixture(
    tasks: Sequence[str],
    split: str,
    data_dir: str | Path,
    grid: TokenGrid,
    *,
    weights: Sequence[float] | None = None,
    **options: Any,
) -> MixtureDataset:
    """Several benchmarks as one data set.

    Args:
        tasks: Keys of `processing.benchmarks.TASKS`.
        split: A split that all of them have.
        data_dir: Folder in the public layout.
        grid: Token grid of the model.
        weights: Relative share of each task; default: every sample once an epoch.
        **options: See `BenchmarkDataset`.

    Raises:
        FileNotFoundError: See `BenchmarkDataset`.
        ValueError: See `BenchmarkDataset`; no task, a task twice, or another number of weights.
    """
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks must name at least one benchmark, each once, got {list(tasks)}.")
    if weights and len(weights) != len(tasks):
        raise ValueError(f"weights must have one number for each of {list(tasks)}, got {list(weights)}.")
    datasets = {task: BenchmarkDataset(task, split, data_dir, grid, **options) for task in tasks}
    return MixtureDataset(datasets, dict(zip(tasks, weights, strict=True)) if weights else None)
