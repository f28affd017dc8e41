"""Push an export to the Hub, model card included; `--dry-run FOLDER` writes what would be pushed, without a network.

python examples/push_to_hub.py outputs/demo/export your-name/3d-ide-rooms --dry-run outputs/push
"""

import argparse
import sys
from pathlib import Path

from trainer.push import push_export


def main() -> None:
    """Push, and say where the model went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", metavar="EXPORT", type=Path, help="folder written by export_inference_model")
    parser.add_argument("repo_id", metavar="REPO_ID", help="your-name/model-name")
    parser.add_argument("--dry-run", metavar="FOLDER", type=Path, help="write the folder, push nothing")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    args = parser.parse_args()
    try:
        place = push_export(args.export, args.repo_id, args.dry_run, args.private)
    except (OSError, ValueError) as error:
        sys.exit(f"push_to_hub: {error}")
    sys.stdout.write(f"{place}\n")


if __name__ == "__main__":
    main()
