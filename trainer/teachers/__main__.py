"""Store the features of a teacher for a folder of scenes: `python -m trainer.teachers --teacher T --data_dir D`."""

import argparse
import logging
import sys

import torch
from accelerate import PartialState

from processing import IDE3DProcessor
from processing.benchmarks.readers.scenes import FRAME_RULES
from processing.token_grid import TokenGrid
from trainer.teachers.extraction import extract_features, list_scenes
from trainer.teachers.loading import KINDS, load_teacher

logger = logging.getLogger("trainer.teachers")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the settings from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.teachers",
        description="Store the features of a teacher, pooled to the token grid of a model. The same command goes on "
        "where it was stopped; accelerate launch runs it in several processes.",
    )
    kinds = ", ".join(KINDS[1:])
    parser.add_argument("--teacher", required=True, help=f"{kinds}, or a vision backbone of Transformers")
    parser.add_argument("--data_dir", required=True, help="folder in the public layout")
    parser.add_argument("--output_dir", required=True, help="gets a file for each scene")
    grid = parser.add_mutually_exclusive_group(required=True)
    grid.add_argument("--model", help="folder or Hub name of the model that will be trained, for its token grid")
    grid.add_argument(
        "--grid", type=int, nargs=3, metavar=("PIXELS", "PATCH", "STRIDE"), help="token grid, such as 384 14 2"
    )
    parser.add_argument("--scene_ids", nargs="+", default=(), help="scenes such as scannet/scene0000_00; default: all")
    parser.add_argument("--split", choices=("train", "val", "test"), help="split of EmbodiedScan; default: all scenes")
    parser.add_argument("--frames", default="uniform", choices=FRAME_RULES, help="rule of the frames, as in training")
    parser.add_argument(
        "--num_frames", type=int, default=32, help="number of frames of a scene at most, as in training"
    )
    parser.add_argument("--protocol", default="clean", choices=("clean", "paper"), help="rule that pools patches")
    parser.add_argument("--weights", help="Hub name or path of the weights of vggt and depth_anything_3")
    parser.add_argument("--licence", help="licence of the weights, where no model card states it")
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="input of a Transformers backbone in pixels",
    )
    parser.add_argument("--layer", type=int, help="layer of a backbone; default: the last one")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="number of frames at a time of a Transformers backbone"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser.parse_args(arguments)


def main() -> None:
    """Extract features and log the size of the files."""
    state = PartialState()
    logging.basicConfig(level=logging.INFO if state.is_main_process else logging.WARNING, format="%(message)s")
    given = parse_arguments()
    try:
        scenes = list_scenes(given.data_dir, split=given.split, scene_ids=given.scene_ids)
        teacher = load_teacher(
            given.teacher,
            weights=given.weights,
            licence=given.licence,
            data_dir=given.data_dir,
            image_size=tuple(given.image_size) if given.image_size else None,
            layer=given.layer,
            batch_size=given.batch_size,
            device=state.device,
            dtype=getattr(torch, given.dtype),
            protocol=given.protocol,
        )
        report = extract_features(
            teacher,
            read_grid(given.model, given.grid),
            given.data_dir,
            given.output_dir,
            scenes,
            frames=given.frames,
            num_frames=given.num_frames,
        )
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    logger.info("%s, licence %s", teacher.name, teacher.licence)
    logger.info("%s: %s", given.output_dir, report)


def read_grid(model: str | None, grid: list[int] | None) -> TokenGrid:
    """Make the token grid from its numbers, or read that of a model."""
    if model is None:
        return TokenGrid(*grid)
    processor = IDE3DProcessor.from_pretrained(model)
    return TokenGrid.of(processor)


if __name__ == "__main__":
    main()
