"""Rows for the probes: tokens of many scenes whose relation to depth is known."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Rows:
    """`noise` (N, C) are standard normal channels, to be overwritten or not."""

    noise: np.ndarray
    cells: np.ndarray
    scenes: np.ndarray
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.scenes)

    def with_channel(self, values: np.ndarray, channel: int = 1) -> np.ndarray:
        """The channels, one of them replaced."""
        features = self.noise.copy()
        features[:, channel] = values
        return features


def make_rows(
    num_scenes: int = 60, per_scene: int = 150, channels: int = 8, num_cells: int = 25, seed: int = 0
) -> Rows:
    """Scenes of equally many tokens; cells go round."""
    rng = np.random.default_rng(seed)
    count = num_scenes * per_scene
    return Rows(
        noise=rng.normal(size=(count, channels)).astype(np.float32),
        cells=np.tile(np.arange(per_scene) % num_cells, num_scenes),
        scenes=np.repeat([f"scene{index:03d}" for index in range(num_scenes)], per_scene),
        rng=rng,
    )
