"""Ask a model where in 3D the objects of procedural rooms are, and score its boxes in words.

python examples/evaluate_room_boxes.py outputs/boxes_nano/export --num-rooms 500 --output outputs/room_boxes.json
"""

import argparse
import logging
from pathlib import Path
from typing import get_args

from processing.boxes_in_words import NumberStyle
from processing.focal_length import FieldOfView
from processing.rooms.box_questions import BoxLesson, Lenses
from processing.rooms.scene.styles import STYLES
from processing.writing import write_json
from trainer.evaluation.room_boxes import RoomFinding, evaluate_room_boxes, format_box_table
from trainer.evaluation.runner import load_processor
from trainer.session.said_boxes import choose_numbers

logger = logging.getLogger("evaluate_room_boxes")


def main(words: list[str] | None = None) -> dict:
    """Evaluate, log the table, write it and all answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Folder of an exported model, or its name on the Hub.")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--style", default="plain", choices=tuple(STYLES), help="Style of the rooms.")
    parser.add_argument("--num-rooms", type=int, default=500)
    parser.add_argument("--num-baseline-rooms", type=int, default=1000, help="Training rooms behind the mean boxes.")
    parser.add_argument("--num-frames", type=int, help="Frames of a room. Default: those of the model's processor.")
    parser.add_argument(
        "--finding",
        default="words",
        choices=get_args(RoomFinding),
        help="Source of a box: the model's words, regions that it finds, or one of the true boxes, which it chooses.",
    )
    parser.add_argument(
        "--numbers", choices=get_args(NumberStyle), help="As in the training. Default: as the model's tokenizer tells."
    )
    parser.add_argument("--lenses", default="one", choices=get_args(Lenses))
    parser.add_argument("--field-of-view", default="squash", choices=get_args(FieldOfView))
    parser.add_argument("--output", type=Path, help="JSON with the scores and all answers.")
    settings = vars(parser.parse_args(words))
    output = settings.pop("output")
    settings["numbers"] = choose_numbers(settings["numbers"], load_processor(settings["model"]).tokenizer)
    lesson = BoxLesson(*(settings.pop(name) for name in ("numbers", "lenses", "field_of_view")))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    result = evaluate_room_boxes(**settings, lesson=lesson)
    logger.info("%s rooms of %s:\n%s", result["num_rooms"], result["split"], format_box_table(result))
    if output:
        write_json(output, result)
    return result


if __name__ == "__main__":
    main()
