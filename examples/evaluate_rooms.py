"""Ask a model about procedural rooms, and say what words and image height alone would answer.

python examples/evaluate_rooms.py examples/checkpoints/ide3d-nano-rooms --num-rooms 500 --output outputs/rooms.json
"""

import argparse
import logging
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from processing.rooms import load_rooms
from processing.rooms.questions.baselines import Baselines
from processing.rooms.scene.styles import STYLES
from processing.writing import write_json
from trainer.evaluation.rooms import format_room_table, judge_rooms, tabulate

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
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    processor = AutoProcessor.from_pretrained(args.model, trust_remote_code=True)
    model = AutoModelForImageTextToText.from_pretrained(args.model, trust_remote_code=True, dtype=torch.float32).eval()
    options = {
        "style": args.style,
        "image_size": processor.image_size,
        "num_frames": processor.video_processor.num_frames,
    }
    baselines = Baselines(load_rooms("train", args.num_baseline_rooms, **options))
    rooms = load_rooms(args.split, args.num_rooms, **options)
    judged = judge_rooms(model, processor, rooms, baselines, args.reference)
    table = tabulate(judged)
    logger.info("%s rooms of %s:\n%s", len(rooms), args.split, format_room_table(table))
    if args.output:
        answers = [
            {
                "scene_id": entry.scene_id,
                **{key: entry.question[key] for key in ("type", "reference", "question")},
                "truth": entry.question["answer"],
                "answer": entry.answer,
                "is_right": entry.is_right,
            }
            for entry in judged
        ]
        write_json(args.output, {"split": args.split, "num_rooms": len(rooms), "table": table, "answers": answers})
    return table


if __name__ == "__main__":
    main()
