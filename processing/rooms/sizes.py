"""Bounds of what rooms are asked for."""

from processing.argument_rules import check_whole
from processing.rooms.generate import MIN_IMAGE_SIZE

__all__ = ["MAX_SCENES", "check_room_sizes"]

# Far above what the renderer makes in a day, and below what fills the memory before it begins.
MAX_SCENES, MAX_FRAMES, MAX_IMAGE_SIZE = 10_000_000, 100_000, 16_384


def check_room_sizes(num_scenes: int, seed: int, image_size: int, num_frames: int) -> tuple[int, int, int, int]:
    """Return what sets the size of rendered rooms, and their seed, as integers.

    Args:
        num_scenes: Number of rooms.
        seed: Seed of the family of rooms; may be negative.
        image_size: Height and width of frames, pixels.
        num_frames: Frames per room.

    Raises:
        TypeError: One is no integer.
        ValueError: One is too small for a room, or too large.
    """
    return (
        check_whole(num_scenes, "num_scenes", 1, MAX_SCENES),
        check_whole(seed, "seed", None),
        check_whole(image_size, "image_size", MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
        check_whole(num_frames, "num_frames", 1, MAX_FRAMES),
    )
