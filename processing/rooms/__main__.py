"""Measure the rooms: `python -m processing.rooms` logs rooms per second and what shortcuts score.

The predictors are fitted on as many training rooms as are scored. Rooms are generated anew in a temporary folder.
"""

import argparse
import logging
import tempfile
import time

from processing.rooms.dataset import load_rooms
from processing.rooms.generate import SPLITS
from processing.rooms.questions.baselines import Baselines, format_table
from processing.rooms.scene.styles import STYLES
from processing.writing import write_json

logger = logging.getLogger("processing.rooms")


def main(arguments: list[str] | None = None) -> dict:
    """Run the measurement; returns what `--json` writes."""
    parser = argparse.ArgumentParser(prog="python -m processing.rooms", description=__doc__)
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--num-scenes", type=int, default=200)
    parser.add_argument("--style", default="plain", choices=tuple(STYLES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=126)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--num-proc", type=int, default=None)
    parser.add_argument("--json", default=None, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shape = {key: getattr(options, key) for key in ("style", "seed", "image_size", "num_frames", "num_proc")}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        scored = load_rooms(options.split, options.num_scenes, cache_dir=folder, **shape)
        seconds = time.perf_counter() - start
        # Another seed where the scored rooms are training rooms themselves.
        fit_seed = options.seed + (options.split == "train")
        fitted = load_rooms("train", options.num_scenes, cache_dir=folder, **{**shape, "seed": fit_seed})
        columns = ["instance_ids", "questions"]
        table = Baselines(fitted.select_columns(columns)).score(scored.select_columns(columns))
    result = {
        **vars(options),
        "seconds": seconds,
        "rooms_per_second": options.num_scenes / seconds,
        "baselines": table,
    }
    logger.info(
        "%d rooms of %d frames at %d px in %.1f s: %.1f rooms/s",
        options.num_scenes,
        options.num_frames,
        options.image_size,
        seconds,
        result["rooms_per_second"],
    )
    logger.info("Answers right without looking, in percent:\n%s", format_table(table))
    if options.json:
        write_json(options.json, result)
    return result


if __name__ == "__main__":
    main()
