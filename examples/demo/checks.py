"""Say what has to hold for the demo to pass."""

import math
from collections.abc import Mapping
from typing import TypedDict

from trainer.evaluation.rooms import BASELINES

__all__ = ["Check", "Part", "check_demo"]

# Types of questions in which the model has to be ahead of the most frequent answer, of the words alone and of the
# height in the picture: as shipped on rooms of its own style, and fine-tuned on rooms of the other.
MUST_BE_AHEAD = ("existence", "colour", "direction", "closer", "position")
NUM_STANDARD_ERRORS = 2.0  # a smaller lead, or gain, is noise


class Check(TypedDict):
    """A check, whether it passed, and the numbers behind it."""

    name: str
    passed: bool
    detail: str


class Part(TypedDict, total=False):
    """Scores of a part; `mean` is there where models before and after were asked."""

    scores: list[dict[str, str | int | float | None]]
    grounding: dict[str, float]
    mean: dict[str, float]


def is_ahead(share: float, best: float, count: int) -> bool:
    """Return whether a share of `count` answers, taken as independent, leads by two standard errors."""
    return share - best > NUM_STANDARD_ERRORS * math.sqrt(share * (1 - share) / count)


def check_demo(shipped: Part, tuned: Part, depth: Mapping[str, float]) -> list[Check]:
    """Check all that has to hold for the demo to pass.

    - For each type of `MUST_BE_AHEAD`, the model leads the best of its baselines by two standard errors, and finding
      objects leads chance: as shipped, and after fine-tuning on rooms of the other style.
    - Fine-tuning raises the mean accuracy over types by two standard errors.
    - The validator's depth beats the best constant of each pixel.
    """
    mean = tuned["mean"]
    gained = mean["gain"] > NUM_STANDARD_ERRORS * mean["standard_error"]
    detail = f"mean over types {100 * mean['before']:.1f} % before, {100 * mean['after']:.1f} % after, standard error "
    detail += f"{100 * mean['standard_error']:.1f} points"
    return [
        *check_part("as shipped", shipped, "model"),
        *check_part("after fine-tuning", tuned, "after"),
        {"name": "fine-tuning helps", "passed": gained, "detail": detail},
        {
            "name": "validator beats constant depth",
            "passed": depth["abs_rel"] < depth["abs_rel_constant"],
            "detail": f"AbsRel {depth['abs_rel']:.3f} against {depth['abs_rel_constant']:.3f}",
        },
    ]


def check_part(words: str, part: Part, model: str) -> list[Check]:
    """Check that a model leads the baselines in questions, and chance in finding objects.

    Args:
        words: Name of the part in the checks.
        part: Scores of the part.
        model: Name of the model in these scores.
    """
    by_type, checks = {entry["type"]: entry for entry in part["scores"]}, []
    for kind in MUST_BE_AHEAD:
        passed, detail = False, "no such question was asked"
        if kind in by_type:
            entry = by_type[kind]
            best = max(entry[baseline] for baseline in BASELINES if entry[baseline] is not None)
            passed = is_ahead(entry[model], best, entry["n"])
            detail = f"{100 * entry[model]:.1f} % against {100 * best:.1f} % ({entry['n']} questions)"
        name = f"{words}, {kind} is ahead of predictors without sight"
        checks.append({"name": name, "passed": passed, "detail": detail})
    found = part["grounding"]
    passed = is_ahead(found[model], found["chance"], found["n"])
    detail = f"{100 * found[model]:.1f} % against {100 * found['chance']:.1f} % ({found['n']} requests)"
    return [*checks, {"name": f"{words}, finding objects beats chance", "passed": passed, "detail": detail}]
