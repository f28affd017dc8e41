"""Keys of a training sample: misspelt ones are refused, foreign ones are told."""

import difflib
import functools
import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["NEEDED_KEYS", "check_keys", "find_foreign_keys"]

logger = logging.getLogger(__name__)

NEEDED_KEYS = ("messages", "frames", "images")  # a chat without its frames or images is refused in any case
MISSPELT = 0.8  # share of equal letters (difflib) from which a name is taken for another one
NO_MISSPELLINGS = frozenset({"scan_id", "extrinsics"})  # columns that are close to a key and mean something else
# Columns of our own data sets (`load_task`, `load_rooms` and their samples), and names that data sets often have.
COLUMNS = frozenset(
    """
    id task question questions options answers question_type candidate_boxes gt_boxes object_ids input_box source_text
    metadata instance_ids objects cell_words mentions answer index label labels split source dataset
    """.split()
)


@functools.cache
def check_keys(given: frozenset[str], optional: tuple[str, ...]) -> None:
    """Raise ValueError for a key that is close to an absent optional key.

    Args:
        given: Keys of a sample that have a value.
        optional: Keys that the collator reads and that nothing else asks for.
    """
    missing = {_simplify(key): key for key in optional if key not in given}
    for key in sorted(given - set(optional) - NO_MISSPELLINGS):
        name = _simplify(key)
        close = [missing[other] for other in difflib.get_close_matches(name, missing, cutoff=MISSPELT)]
        if close and not name.startswith(f"{close[0]}_"):  # `depth_path` is something else
            raise ValueError(
                f"Unknown key {key!r}: did you mean {' or '.join(map(repr, close))}? Rename it or leave it out."
            )


@functools.cache
def find_foreign_keys(given: frozenset[str], optional: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys that neither the collator nor our data sets know, sorted; see `check_keys`."""
    return tuple(sorted(given - {*NEEDED_KEYS, *optional} - COLUMNS))


def list_keys(sample: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys of a sample that have a value."""
    return frozenset(str(key) for key in sample if sample[key] is not None)


def _simplify(key: str) -> str:
    return key.lower().replace("-", "_").replace(" ", "_")
