"""Push an export to the Hub, with a model card whose quick start loads it from there."""

import shutil
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from trainer.export import CARD_FILE, is_export, replace_folder
from trainer.model_card import set_model_id

__all__ = ["push_export"]


def push_export(export: str | Path, repo_id: str, dry_run: str | Path | None = None, private: bool = False) -> str:
    """Push an export in one commit, or write what would be pushed into a folder.

    Args:
        export: Folder written by `export_inference_model`.
        repo_id: Name on the Hub, `your-name/model-name`.
        dry_run: Folder to write instead; nothing is pushed, and no network is needed.
        private: Whether a new repository is private.

    Returns:
        Address of the commit, or the folder of the dry run.

    Raises:
        ValueError: `repo_id` is no name of a repository, or `export` is no export.
        FileExistsError: `dry_run` exists and is not an earlier export.
        ConnectionError: The Hub cannot be reached, or does not let this user write.
    """
    export = Path(export)
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"REPO_ID is your-name/model-name, got {repo_id!r}.")
    if not is_export(export):
        raise ValueError(f"{export} is no export, or holds other files too. Write it by export_inference_model.")
    card = set_model_id(ModelCard.load(export / CARD_FILE), repo_id)
    files = sorted(path for path in export.iterdir() if path.is_file() and path.name != CARD_FILE)
    if dry_run is not None:
        with replace_folder(dry_run) as folder:
            for path in files:
                shutil.copyfile(path, folder / path.name)
            card.save(folder / CARD_FILE)
        return str(dry_run)
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path.name, path) for path in files]
        operations.append(CommitOperationAdd(CARD_FILE, str(card).encode()))
        return api.create_commit(repo_id, operations, commit_message="Upload 3D-IDE model").commit_url
    except (LocalTokenNotFoundError, HTTPError) as error:
        raise ConnectionError(
            f"{error} Is the Hub reachable? Log in by `hf auth login`; the token must allow writing."
        ) from error
