"""Push an export to the Hub, model card included; `--dry-run FOLDER` writes what would be pushed, without a network.

python examples/push_to_hub.py outputs/demo/export your-name/3d-ide-rooms --dry-run outputs/push
"""

import argparse
import shutil
import sys
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from trainer.export import CARD_FILE, is_export, replace_folder
from trainer.model_card import set_model_id


def push(export: Path, repo_id: str, dry_run: Path | None = None, private: bool = False) -> str:
    """Push `export`, or write it to `dry_run`, with a card whose quick start loads `repo_id`; says where it went."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"REPO_ID is your-name/model-name, got {repo_id!r}.")
    if not is_export(export):
        raise ValueError(f"{export} is no export, or holds other files too. Write it by export_inference_model.")
    card = set_model_id(ModelCard.load(export / CARD_FILE), repo_id)
    files = sorted(path for path in export.iterdir() if path.name != CARD_FILE)
    if dry_run is not None:
        with replace_folder(dry_run) as folder:
            for path in files:
                shutil.copyfile(path, folder / path.name)
            card.save(folder / CARD_FILE)
        return str(dry_run)
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    operations = [CommitOperationAdd(path.name, path) for path in files]
    operations.append(CommitOperationAdd(CARD_FILE, str(card).encode()))
    return api.create_commit(repo_id, operations, commit_message="Upload 3D-IDE model").commit_url


def main() -> None:
    """Parse the command line, say on stdout where the model went and on stderr what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", metavar="EXPORT", type=Path, help="folder written by export_inference_model")
    parser.add_argument("repo_id", metavar="REPO_ID", help="your-name/model-name")
    parser.add_argument("--dry-run", metavar="FOLDER", type=Path, help="write the folder, push nothing")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    args = parser.parse_args()
    try:
        place = push(args.export, args.repo_id, args.dry_run, args.private)
    except (LocalTokenNotFoundError, HTTPError) as error:
        sys.exit(
            f"push_to_hub: {error}\nIs the Hub reachable? Log in by `hf auth login`; the token must allow writing."
        )
    except (OSError, ValueError, HFValidationError) as error:
        sys.exit(f"push_to_hub: {error}")
    sys.stdout.write(f"{place}\n")


if __name__ == "__main__":
    main()
