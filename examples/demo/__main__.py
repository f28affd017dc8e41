"""Ask the shipped nano model from outside, then fine-tune it on rooms of another style.

    make demo          (or: python -m examples.demo [--output_dir outputs/demo] [--max_steps N] ...)

1. A process that cannot import this repository loads the model folder and gets videos of rooms. It answers questions
   in words and finds objects that are described.
2. The model is fine-tuned by recipes/rooms_other_style.yaml with all losses and exported; the same process answers the
   same questions about unseen rooms of that style before and after.

Leaves `report.html`, `summary.json` and `export/` in the output folder, and exits non-zero if a check fails (see
`check_demo`). Interrupted, it goes on from its last checkpoint.
"""

import logging
import sys
from pathlib import Path

from processing import IDE3DProcessor
from processing.token_grid import TokenGrid
from processing.writing import write_json
from trainer import IDE3DTrainingArguments
from trainer.recipes import DataArguments, ModelArguments, read_recipe

from . import parts
from .checks import check_demo
from .report import write_report

__all__ = ["main", "run"]

EXAMPLES = Path(__file__).resolve().parents[1]
RECIPE = EXAMPLES / "recipes" / "rooms_other_style.yaml"
CHECKPOINT = EXAMPLES / "checkpoints" / "ide3d-nano-rooms"

logger = logging.getLogger("demo")


def run(model_arguments: ModelArguments, data: DataArguments, args: IDE3DTrainingArguments, output: Path) -> bool:
    """Do both parts, write the report, and return whether the checks passed."""
    seconds: dict[str, float] = {}
    checkpoint = Path(model_arguments.model_name_or_path)
    processor = IDE3DProcessor.from_pretrained(checkpoint)
    grid = TokenGrid.of(processor)
    shipped = parts.show_shipped(checkpoint, grid, data, output, seconds)
    tuned = parts.fine_tune(model_arguments, data, args, grid, output, seconds)
    checks = check_demo(shipped, tuned["fine_tuned"], tuned["depth"])
    passed = all(check["passed"] for check in checks)
    rooms = {
        "style": data.room_style,
        "train": data.num_rooms,
        "test": parts.NUM_TEST_ROOMS,
        "frames": data.num_frames,
        "px": data.image_size,
    }
    summary = {"passed": passed, "checks": checks, "shipped": shipped, **tuned, "seconds": seconds, "rooms": rooms}
    write_json(output / "summary.json", summary)
    logger.info("Report: %s", write_report(output))
    for check in checks:
        logger.info("%s %s: %s", "pass" if check["passed"] else "FAIL", check["name"], check["detail"])
    return passed


def main() -> None:
    """Read the recipe, run, and exit non-zero if a check fails."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    words = sys.argv[1:]
    if "--output_dir" not in words:
        words = ["--output_dir", "outputs/demo", *words]
    # The recipe names the model from the repository's folder; the demo runs from any.
    model_arguments, data, args = read_recipe(RECIPE, ["--model_name_or_path", str(CHECKPOINT), *words])
    if not Path(model_arguments.model_name_or_path, "config.json").is_file():
        sys.exit(f"demo: {model_arguments.model_name_or_path} has no config.json. It must be the folder of an export.")
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    args.output_dir = str(output / "fine_tuning")
    sys.exit(0 if run(model_arguments, data, args, output) else 1)


if __name__ == "__main__":
    main()
