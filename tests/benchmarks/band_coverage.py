"""How often the 95 % band of a score holds the truth, on scores whose truth is known; prints JSON.

`python tests/benchmarks/band_coverage.py` draws scenes and their questions anew for every band.
"""

import argparse
import json
import sys
from collections.abc import Callable
from itertools import product

import numpy as np

from trainer.evaluation.metrics.scores import mean_score, summarise

SCENES = (2, 4, 5, 10, 20, 50)
SPREAD, NOISE = 0.1, 0.2  # of the means of scenes, and of the answers about one scene
SIZES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "one": lambda rng, scenes: np.ones(scenes, int),
    "ten": lambda rng, scenes: np.full(scenes, 10),
    "uneven": lambda rng, scenes: np.maximum(1, rng.lognormal(2.3, 0.8, scenes)).astype(int),
}
# Shares: the mean of all scenes, and how alike the answers about one scene are (correlation within it).
SHARES = ((0.5, 0.0), (0.5, 0.3), (0.8, 0.1), (0.9, 0.1))


def draw_normal(rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
    """Normal scores of scenes whose means differ; the truth is 0."""
    return np.repeat(rng.normal(0, SPREAD, len(sizes)), sizes) + rng.normal(0, NOISE, sizes.sum())


def draw_share(rng: np.random.Generator, sizes: np.ndarray, mean: float, alike: float) -> np.ndarray:
    """Right and wrong answers, 1 and 0; the truth is `mean`."""
    own = np.full(len(sizes), mean)
    if alike:
        strength = (1 - alike) / alike
        own = rng.beta(mean * strength, (1 - mean) * strength, len(sizes))
    return (rng.random(sizes.sum()) < np.repeat(own, sizes)).astype(float)


def measure(kind: tuple[float, float] | None, size: str, scenes: int, repeats: int, seed: int = 0) -> dict[str, float]:
    """Share of bands that hold the truth and their mean width, None where there is no band.

    Args:
        kind: Entry of `SHARES`; None: normal scores.
        size: Key of `SIZES`, the number of answers about each scene.
        scenes: Number of scenes.
        repeats: Number of bands.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    truth = kind[0] if kind else 0.0
    held, widths = [], []
    for _ in range(repeats):
        sizes = SIZES[size](rng, scenes)
        values = draw_share(rng, sizes, *kind) if kind else draw_normal(rng, sizes)
        names = np.repeat(np.arange(scenes), sizes).astype(str)
        low, high = summarise({"score": mean_score(values, percent=False)}, names)["bands"]["score"]
        if low is None:
            return {"coverage": None, "width": None}
        held.append(low <= truth <= high)
        widths.append(high - low)
    return {"coverage": float(np.mean(held)), "width": float(np.mean(widths))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000, help="bands of each row")
    repeats = parser.parse_args().repeats
    rows = [
        {
            "scores": f"shares, mean {kind[0]}, alike {kind[1]}" if kind else "normal",
            "answers of a scene": size,
            "scenes": scenes,
            **measure(kind, size, scenes, repeats),
        }
        for kind, size, scenes in product((None, *SHARES), SIZES, SCENES)
    ]
    sys.stdout.write(json.dumps({"repeats": repeats, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
