"""Lessons of a recipe and the share of each."""

from collections.abc import Sequence

from trainer.field_rules import POSITIVE, check_number, find_near

__all__ = ["BOX_LESSONS", "KINDS", "read_shares"]

BOX_LESSONS = ("box", "outline", "pointed")
KINDS = ("place", "region", "word", "view", *BOX_LESSONS)  # lessons of a training, `processing.rooms.lessons`


def read_shares(lessons: Sequence[str], argument: str = "lessons") -> dict[str, float]:
    """Read the share of each kind from lessons such as `view=2`.

    Args:
        lessons: Lessons, each as `kind=share`.
        argument: Argument that they are of, for the message.

    Raises:
        ValueError: A lesson that is not written as `kind=share`. A kind is there twice or unknown, a share is not
            positive, or it is the lesson before the training.
    """
    shares: dict[str, float] = {}
    for lesson in lessons:
        name, _, share = lesson.partition("=")
        if name == "naming":
            raise ValueError(f"{argument}: naming is what naming_steps trains; {argument} are of {', '.join(KINDS)}.")
        if name not in KINDS or name in shares:
            problem = "there twice" if name in shares else f"none of {', '.join(KINDS)}"
            raise ValueError(f"{argument}: {name!r} of {lesson!r} is {problem}.{find_near(name, KINDS)}")
        try:
            shares[name] = float(share)
            check_number(argument, shares[name], POSITIVE)
        except ValueError:
            raise ValueError(
                f"{argument} are written kind=share with a positive share, such as view=2, got {lesson!r}."
            ) from None
    return shares
