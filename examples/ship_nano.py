r"""Put a trained nano model where it is shipped: its export, its scores in the card, and how to make it again.

python examples/ship_nano.py outputs/ide3d_nano_rooms outputs/nano_more_rooms outputs/nano_all_tasks \
    outputs/nano_benchmark_words --target examples/checkpoints/ide3d-nano-rooms
"""

import argparse
import logging
from pathlib import Path

from trainer.evaluation.shipping import ship

STAGES = ("ide3d_nano_rooms", "nano_more_rooms", "nano_all_tasks", "nano_benchmark_words")
RECIPES = tuple(Path(__file__).parent / "recipes" / f"{name}.yaml" for name in STAGES)
RUNS = tuple(f"outputs/{name}" for name in STAGES)
COMMANDS = (
    *(f"python examples/train.py examples/recipes/{name}.yaml" for name in STAGES),
    f"python examples/evaluate_rooms.py {RUNS[-1]}/export --output {RUNS[-1]}/evaluation.json",
    f"python examples/ship_nano.py {' '.join(RUNS)} --target examples/checkpoints/ide3d-nano-rooms",
)


def main() -> None:
    """Ship the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="Output folders of the stages of the training, or the training.json of the model that it began with.",
    )
    parser.add_argument("--target", type=Path, required=True, help="Folder to replace.")
    parser.add_argument("--evaluation", type=Path, help="Default: evaluation.json of the last run.")
    parser.add_argument("--note", help="What else belongs to how it was made.")
    parser.add_argument("--tried", help="What was tried for the types that are not above their baselines.")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    evaluation = args.evaluation or args.runs[-1] / "evaluation.json"
    ship(args.runs, args.target, evaluation, recipes=RECIPES, commands=COMMANDS, note=args.note, tried=args.tried)


if __name__ == "__main__":
    main()
