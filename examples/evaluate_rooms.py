"""Ask a model about procedural rooms, and say what words and image height alone would answer.

python examples/evaluate_rooms.py examples/checkpoints/ide3d-nano-rooms --num-rooms 500 --output outputs/rooms.json
"""

import argparse
import logging
from pathlib import Path

from processing.rooms.scene.styles import STYLES
from processing.writing import write_json
from trainer.evaluation.rooms import evaluate_rooms, format_room_table

logger = logging.getLogger("evaluate_rooms")


def main(words: list[str] | None = None) -> list[dict]:
    """Evaluate, log the table, write it and all answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Folder of an exported model, or its name on the Hub.")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--style", default="plain", choices=tuple(STYLES), help="Style of the rooms.")
    parser.add_argument("--num-rooms", type=int, default=500)
    parser.add_argument("--num-baseline-rooms", type=int, default=1000, help="Training rooms behind the baselines.")
    parser.add_argument("--reference", choices=("word", "region"), help="Only questions that name, or that point.")
    parser.add_argument("--output", type=Path, help="JSON with the table and all answers.")
    settings = vars(parser.parse_args(words))
    output = settings.pop("output")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    result = evaluate_rooms(**settings)
    logger.info("%s rooms of %s:\n%s", result["num_rooms"], result["split"], format_room_table(result["table"]))
    if output:
        write_json(output, result)
    return result["table"]


if __name__ == "__main__":
    main()
