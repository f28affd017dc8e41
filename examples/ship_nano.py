"""Put a trained nano model where it is shipped: its export, its scores in the card, and how to make it again.

python examples/ship_nano.py outputs/ide3d_nano_rooms examples/checkpoints/ide3d-nano-rooms
"""

import argparse
import logging
from pathlib import Path

from trainer.evaluation.shipping import ship

RECIPE = Path(__file__).parent / "recipes" / "ide3d_nano_rooms.yaml"
COMMANDS = (
    "python examples/train.py examples/recipes/ide3d_nano_rooms.yaml",
    "python examples/evaluate_rooms.py outputs/ide3d_nano_rooms/export "
    "--output outputs/ide3d_nano_rooms/evaluation.json",
    "python examples/ship_nano.py outputs/ide3d_nano_rooms examples/checkpoints/ide3d-nano-rooms",
)


def main() -> None:
    """Ship the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="Output folder of the training.")
    parser.add_argument("target", type=Path, help="Folder to replace.")
    parser.add_argument("--evaluation", type=Path, help="Default: evaluation.json of the run.")
    parser.add_argument("--note", help="What else belongs to how it was made.")
    parser.add_argument("--tried", help="What was tried for the types that are not above their baselines.")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    evaluation = args.evaluation or args.run / "evaluation.json"
    ship(args.run, args.target, evaluation, recipe=RECIPE, commands=COMMANDS, note=args.note, tried=args.tried)


if __name__ == "__main__":
    main()
