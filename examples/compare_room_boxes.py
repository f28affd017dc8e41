"""Compare the boxes in words of two ways of training, each on one or more seeds.

python examples/compare_room_boxes.py --ours outputs/with_*.json --theirs outputs/without_*.json
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from processing.tables import format_band, format_number, markdown_table
from processing.writing import write_json
from trainer.evaluation.compare import compare_paired

logger = logging.getLogger("compare_room_boxes")

NEAR = (0.5, 1.0)  # metres between the centres
MEASURES = {
    "acc@0.25": lambda entry: entry["acc@0.25"] > 0,
    **{f"centre within {d} m": lambda entry, d=d: _is_near(entry["center_error"], d) for d in NEAR},
}


def _is_near(error: float | None, distance: float) -> bool:
    return error is not None and error <= distance


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare results of `evaluate_room_boxes`, question by question, where one object is meant.

    Args:
        ours: A result for each seed.
        theirs: The same of the other way of training, on the same seeds in the same order.

    Returns:
        By measure: `ours` and `theirs`, the shares of each seed, and the fields of `Difference`. All in percent, but
        `center_error`, in metres: means over the questions that all runs answered with a box.

    Raises:
        ValueError: If the results are of different questions, or of different numbers of seeds.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"Expected as many results of ours as of theirs, one a seed, got {len(ours)}, {len(theirs)}.")
    runs = [[entry for entry in result["answers"] if entry["type"] == "one"] for result in (*ours, *theirs)]
    asked = [[(entry["scene_id"], entry["question"], entry["truth"]) for entry in run] for run in runs]
    if any(each != asked[0] for each in asked):
        raise ValueError("The results are of different questions. Evaluate all on the same split and rooms.")
    scenes, of_scene = np.unique([scene for scene, *_ in asked[0]], return_inverse=True)
    found: dict[str, Any] = {"questions": len(of_scene), "rooms": len(scenes)}
    counts, seeds = np.bincount(of_scene), len(ours)
    for name, is_right in MEASURES.items():
        right = np.array([[is_right(entry) for entry in run] for run in runs], np.float64)
        by_scene = np.array([np.bincount(of_scene, row) for row in right])
        gap = compare_paired(by_scene[:seeds], by_scene[seeds:], counts)
        shares = 100 * right.mean(1)
        found[name] = {
            "ours": shares[:seeds].tolist(),
            "theirs": shares[seeds:].tolist(),
            "difference": 100 * gap.value,
            "per_seed": [100 * value for value in gap.per_seed],
            "scene_interval": _percent(gap.scene_interval),
            "seed_interval": _percent(gap.seed_interval),
            "is_established": gap.is_established,
        }
    errors = np.array([[entry["center_error"] for entry in run] for run in runs], np.float64)
    means = errors[:, np.isfinite(errors).all(0)].mean(1)
    found["center_error"] = {"ours": means[:seeds].tolist(), "theirs": means[seeds:].tolist()}
    return found


def _percent(interval: tuple[float, float] | None) -> list[float] | None:
    return interval and [100 * end for end in interval]


def format_comparison(found: dict[str, Any]) -> str:
    """Return what `compare` gives as a table in Markdown."""
    rows = []
    for name in MEASURES:
        entry = found[name]
        sides = [", ".join(format_number(share, 1) for share in entry[side]) for side in ("ours", "theirs")]
        gap = format_number(entry["difference"], 1, sign=True)
        bands = [format_band(entry[key]) for key in ("scene_interval", "seed_interval")]
        rows.append([name, *sides, gap, *bands])
    error = found["center_error"]
    sides = [", ".join(format_number(value) for value in error[side]) for side in ("ours", "theirs")]
    gap = format_number(float(np.mean(error["ours"]) - np.mean(error["theirs"])), sign=True)
    rows.append(["centre error, metres", *sides, gap, "", ""])
    head = ["score", "ours, each seed", "theirs", "difference", "95 % over rooms", "95 % over seeds"]
    return markdown_table(head, rows, "lrrrrr")


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Compare, log the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, nargs="+", required=True, help="Results, one a seed.")
    parser.add_argument("--theirs", type=Path, nargs="+", required=True, help="The same of the other way of training.")
    parser.add_argument("--output", type=Path, help="JSON with the differences.")
    settings = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    ours, theirs = ([json.loads(path.read_text()) for path in paths] for paths in (settings.ours, settings.theirs))
    found = compare(ours, theirs)
    logger.info("%s questions in %s rooms:\n%s", found["questions"], found["rooms"], format_comparison(found))
    if settings.output:
        write_json(settings.output, found)
    return found


if __name__ == "__main__":
    main()
