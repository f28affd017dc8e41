"""Make pseudo geometry of rooms: the truth in an unknown scale, with errors and holes, as a network would give it."""

import numpy as np

__all__ = ["BLOCK", "distort_geometry"]

LARGEST_FACTOR = 4.0  # the unknown scale is between its inverse and this
BLOCK = 8  # pixels; errors and holes of networks come in patches, not pixel by pixel
BLOCK_ERROR, PIXEL_ERROR = 0.05, 0.03  # standard deviations, as shares of the depth
HOLES = 0.15  # share of the blocks without depth
SURENESS = 0.05  # error, as a share of the depth, at which the confidence falls to 1 / e
GUESSING = 0.5  # confidences are off by a random factor between this and 1
SEED = 3


def distort_geometry(depth: np.ndarray, camera_to_world: np.ndarray, index: int) -> dict[str, np.ndarray | str]:
    """Return geometry of the kind "pseudo", with an unknown scale that depth and poses share.

    It depends on the arguments alone, as the answer of a network depends on the video. Cameras are right, and so are
    poses but for their scale. The confidence is larger where the error is small, by and large.

    Args:
        depth: True depth.
        camera_to_world: True poses.
        index: Index of the room, which seeds scale, errors and holes.

    Shape:
        depth:           (V, h, w), metres, 0 = no measurement; h and w are multiples of 8.
        camera_to_world: (V, 4, 4), metres.
        output:          depth (V, h, w) and camera_to_world (V, 4, 4) in an unknown unit, depth_confidence (V, h, w),
                         0 = hole, and the texts of `geometry_kind` and `depth_alignment`, see `IDE3DDataCollator`.
    """
    rng = np.random.default_rng([SEED, index])
    factor = LARGEST_FACTOR ** rng.uniform(-1, 1)
    frames, height, width = depth.shape
    blocks = (frames, height // BLOCK, width // BLOCK)
    patches = np.ones((1, BLOCK, BLOCK))
    error = np.kron(rng.normal(0, BLOCK_ERROR, blocks), patches) + rng.normal(0, PIXEL_ERROR, depth.shape)
    is_hole = np.kron(rng.random(blocks) < HOLES, patches).astype(bool) | (depth == 0)
    confidence = np.exp(-np.abs(error) / SURENESS) * rng.uniform(GUESSING, 1, depth.shape)
    poses = camera_to_world.copy()
    poses[:, :3, 3] *= factor
    return {
        "depth": np.where(is_hole, 0, depth * factor * np.exp(error)).astype(np.float32),
        "depth_confidence": np.where(is_hole, 0, confidence).astype(np.float32),
        "camera_to_world": poses,
        "geometry_kind": "pseudo",
        "depth_alignment": "scale",
    }
