"""Settings and limits of the page."""

from dataclasses import dataclass

from processing.argument_rules import check_texts, check_whole
from trainer.session.scene_session import DEFAULT_MAX_MEMORY

__all__ = ["PageSettings"]


@dataclass(frozen=True)
class PageSettings:
    """Models that a page offers, and limits of what its visitors may ask.

    Args:
        models: Folders of exports or names on the Hub; the first is chosen at the start.
        any_model: Whether visitors may type another folder or name, which the machine then reads or downloads.
        device: Device, such as "cpu" or "cuda:1"; "auto" takes an accelerator, if any.
        num_frames: Frames to take from a video; default: as in training, at most.
        max_memory: Bytes of a scene beside the weights.
        max_upload: Megabytes of an uploaded file, at most.
        max_seconds: Length of a video in seconds, at most.
        max_tokens: Length of an answer in tokens, at most.
        answer_seconds: Seconds after which an answer is cut.
        max_users: Scenes that are kept at once; the one that waits longest makes room.
        max_queue: Requests that wait at once; further ones are refused.

    Raises:
        TypeError: If `models` are no texts, or a limit is no number.
        ValueError: If there is no model, or a limit is not positive.
    """

    models: tuple[str, ...]
    any_model: bool = False
    device: str = "auto"
    num_frames: int | None = None
    max_memory: int = DEFAULT_MAX_MEMORY
    max_upload: int = 200
    max_seconds: float = 300
    max_tokens: int = 256
    answer_seconds: float = 60
    max_users: int = 8
    max_queue: int = 20

    def __post_init__(self):
        if not check_texts(self.models, "models", is_ordered=True):
            raise ValueError("`models` must name at least one model, got none.")
        for name in ("max_upload", "max_tokens", "max_users", "max_queue", "max_memory"):
            check_whole(getattr(self, name), name, 1)
        for name in ("max_seconds", "answer_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be a number of seconds above 0, got {getattr(self, name)!r}.")
