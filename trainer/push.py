"""Push an export, or rooms as a data set, to the Hub, with a card that says how to load it from there."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, parse_eval_result_entries
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from processing.limits import check_file
from processing.rooms.sharing import is_room_dataset
from trainer.export import CARD_FILE, is_export, replace_folder
from trainer.model_card import EVAL_RESULTS, set_model_id

__all__ = ["check_repo_id", "push_export", "push_rooms"]


def push_export(
    export: str | Path,
    repo_id: str,
    dry_run: str | Path | None = None,
    private: bool = False,
    results: Sequence[str | Path] = (),
) -> str:
    """Push an export in one commit, or write what would be pushed into a folder.

    Args:
        export: Folder written by `export_inference_model`.
        repo_id: Name on the Hub, `your-name/model-name`.
        dry_run: Folder to write instead; nothing is pushed, and no network is needed.
        private: Whether a new repository is private.
        results: Output folders of evaluations, whose `.eval_results` are pushed too.

    Returns:
        Address of the commit, or the folder of the dry run.

    Raises:
        ValueError: `repo_id` is no name of a repository, or `export` is no export. Also if a file of results is none
            that the Hub reads, or two have one name.
        FileNotFoundError: A folder of `results` has no file for the Hub.
        FileExistsError: `dry_run` exists and is not an earlier export.
        ConnectionError: The Hub cannot be reached, or does not let this user write.
    """
    export = Path(export)
    check_repo_id(repo_id)
    if not is_export(export):
        raise ValueError(f"{export} is no export, or holds other files too. Write it by export_inference_model.")
    card = set_model_id(ModelCard.load(export / CARD_FILE), repo_id)
    files = {path.name: path for path in sorted(export.iterdir()) if path.is_file() and path.name != CARD_FILE}
    files |= _find_results([export, *results] if (export / EVAL_RESULTS).is_dir() else results)
    if dry_run is not None:
        with replace_folder(dry_run) as folder:
            for name, path in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, folder / name)
            card.save(folder / CARD_FILE)
        return str(dry_run)
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    operations.append(CommitOperationAdd(CARD_FILE, str(card).encode()))
    return _commit(repo_id, operations, private, "Upload 3D-IDE model")


def push_rooms(folder: str | Path, repo_id: str, private: bool = False) -> str:
    """Push rooms as a data set in one commit.

    Args:
        folder: Folder that `export_room_dataset` wrote.
        repo_id: Name on the Hub, `your-name/data-set-name`.
        private: Whether a new repository is private.

    Returns:
        Address of the commit.

    Raises:
        ValueError: `repo_id` is no name of a repository, or `folder` holds no rooms for the Hub.
        ConnectionError: The Hub cannot be reached, or does not let this user write.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    if not folder.is_dir() or not is_room_dataset(folder):
        raise ValueError(f"{folder} holds no rooms for the Hub, or other files too. Write it by `ide3d rooms share`.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    return _commit(repo_id, operations, private, "Upload rooms", repo_type="dataset")


def check_repo_id(repo_id: str) -> None:
    """Raise ValueError for what is no name of a repository with its owner."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"REPO_ID is your-name/name, got {repo_id!r}.")


def _commit(repo_id: str, operations: list[CommitOperationAdd], private: bool, message: str, **kind: str) -> str:
    """Make a repository if there is none, push one commit and return its address."""
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True, **kind)
        return api.create_commit(repo_id, operations, commit_message=message, **kind).commit_url
    except (LocalTokenNotFoundError, HTTPError) as error:
        raise ConnectionError(
            f"{error} Is the Hub reachable? Log in by `hf auth login`; the token must allow writing."
        ) from error


def _find_results(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Return the files of evaluations for the Hub by their place in the repository, checked."""
    found: dict[str, Path] = {}
    for folder in folders:
        files = sorted(Path(folder, EVAL_RESULTS).glob("*.yaml"))
        if not files:
            raise FileNotFoundError(
                f"{Path(folder, EVAL_RESULTS)} holds no .yaml file. Evaluate with --dataset-id, the name of the "
                "benchmark on the Hub."
            )
        for file in files:
            if (name := f"{EVAL_RESULTS}/{file.name}") in found:
                raise ValueError(f"{file} and {found[name]} have one name: give one of the two folders.")
            check_file(file, "IDE3D_MAX_JSON_BYTES")
            try:
                parse_eval_result_entries(yaml.safe_load(file.read_text("utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
                raise ValueError(f"{file} is no file of scores that the Hub reads: {error!r}.") from error
            found[name] = file
    return found
