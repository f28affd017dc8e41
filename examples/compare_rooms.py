"""Compare two models on the same questions about rooms, type by type.

python examples/compare_rooms.py outputs/before.json outputs/after.json
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from processing.tables import format_band, format_number, markdown_table
from trainer.evaluation.compare import compare_paired

logger = logging.getLogger("compare_rooms")


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare results of `evaluate_rooms`, paired by question.

    Args:
        before: Result of the first model.
        after: Result of the second one about the same rooms.

    Returns:
        An entry for each type and way of asking, and one for all questions: type, reference, n, and in percent before,
        after, difference, and band, the 95 % interval over rooms.

    Raises:
        ValueError: If the results are of different questions.
    """
    asked = [
        [(entry["scene_id"], entry["type"], entry["reference"], entry["question"]) for entry in result["answers"]]
        for result in (before, after)
    ]
    if asked[0] != asked[1]:
        raise ValueError("The results are of different questions. Evaluate both on the same split and rooms.")
    right = np.array([[entry["is_right"] for entry in result["answers"]] for result in (before, after)], np.float64)
    kinds = [(kind, reference) for _, kind, reference, _ in asked[0]]
    groups = {**{kind: [kind] for kind in dict.fromkeys(kinds)}, ("all", ""): list(dict.fromkeys(kinds))}
    table = []
    for (kind, reference), members in groups.items():
        chosen = [index for index, own in enumerate(kinds) if own in members]
        scenes, of_scene = np.unique([asked[0][index][0] for index in chosen], return_inverse=True)
        sums = [np.bincount(of_scene, row[chosen], len(scenes))[None] for row in right]
        gap = compare_paired(sums[1], sums[0], np.bincount(of_scene))
        shares = 100 * right[:, chosen].mean(1)
        table.append(
            {
                **{"type": kind, "reference": reference, "n": len(chosen)},
                **{"before": shares[0], "after": shares[1], "difference": 100 * gap.value},
                "band": gap.scene_interval and [100 * end for end in gap.scene_interval],
            }
        )
    return table


def format_comparison(table: list[dict[str, Any]]) -> str:
    """Return what `compare` gives as a table in Markdown."""
    rows = [
        [
            *(entry["type"], entry["reference"], entry["n"]),
            *(format_number(entry[key], 1) for key in ("before", "after")),
            format_number(entry["difference"], 1, sign=True),
            format_band(entry["band"]),
        ]
        for entry in table
    ]
    return markdown_table(["question", "asked by", "n", "before", "after", "difference", "95 % band"], rows, "llrrrrr")


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    """Compare, and log the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="Result of `evaluate_rooms.py --output`.")
    parser.add_argument("after", type=Path, help="The same of the other model.")
    settings = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    table = compare(*(json.loads(path.read_text()) for path in (settings.before, settings.after)))
    logger.info("In percent:\n%s", format_comparison(table))
    return table


if __name__ == "__main__":
    main()
