"""Answers on disk, one line each, so that a killed run goes on where it stopped."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from processing.limits import check_file
from processing.writing import append_text, hold_file, write_json

__all__ = ["AnswerLog"]

logger = logging.getLogger(__name__)

VERSIONS, LATER = "versions", "later_versions"  # keys of `run.json` that are no part of the identity
UNKNOWN = "not recorded"


class AnswerLog:
    """Append-only JSONL of answers by sample id, beside a file that identifies the run.

    Each process writes a file of its own, which no other run may write meanwhile; all are read, so a run may go on
    with another number of processes.

    Args:
        folder: Output folder of the run; made if it does not exist.
        identity: Facts that all answers of a run share: model, prompts, frames, protocol, attention and so on.
        rank: Rank of this process.
        versions: Versions of libraries, which may change within a run: `run.json` then lists the later ones from the
            first answer on that was made with them.

    Raises:
        ValueError: If the folder holds answers of another run (the differences are named). A fact that an older
            version did not record differs from one that is known. Also if its `run.json` is not what a run writes, or
            a file of it is a pipe or a device.
        BlockingIOError: If another run is writing into the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        rank: int = 0,
        versions: Mapping[str, str] | None = None,
    ):
        self.folder = Path(folder)
        self.file = self.folder / f"answers.{rank:05d}.jsonl"
        self.versions, self._is_recorded = dict(versions or {}), False
        self._check_identity(dict(identity), is_first=rank == 0)
        with ExitStack() as stack:
            if not stack.enter_context(hold_file(self.file)):
                raise BlockingIOError(
                    f"{self.file} is being written by another evaluation, which still runs. Wait until it ends, or "
                    "choose another output folder."
                )
            self._drop_torn_line()
            self._held = stack.pop_all()

    def close(self) -> None:
        """Let other runs write into the folder."""
        self._held.close()

    def _check_identity(self, identity: dict[str, Any], is_first: bool) -> None:
        file = self.folder / "run.json"
        wanted = json.loads(json.dumps(identity))
        if not os.path.lexists(file):
            if any(self.folder.glob("answers.*.jsonl")):
                raise ValueError(f"{self.folder} holds answers, but no `run.json` of their run. Use another folder.")
            write_json(file, {**wanted, VERSIONS: self.versions}, sort_keys=True)  # several processes write the same
            return
        stored = self._read_run()
        changed = sorted(
            key
            for key in (stored.keys() | wanted.keys()) - {VERSIONS, LATER}
            if key not in stored or key not in wanted or stored[key] != wanted[key]
        )
        if changed:
            lines = [f"  {key}: {_tell(stored, key)}, now {_tell(wanted, key)}" for key in changed]
            raise ValueError(
                f"{self.folder} holds answers of another run. Changed:\n"
                + "\n".join(lines)
                + "\nGo on with what it was, or choose another output folder."
            )
        known = _list_versions(stored)
        if is_first and self.versions not in known:
            logger.warning(
                "%s was begun with other libraries, and its answers may differ: %s. `run.json` lists both.",
                self.folder,
                _tell_changes(known[-1], self.versions),
            )

    def _read_run(self) -> dict[str, Any]:
        """Return what `run.json` holds, checked."""
        file = self.folder / "run.json"
        check_file(file, "IDE3D_MAX_JSON_BYTES")
        stored = _parse(file.read_bytes())
        if not isinstance(stored, dict) or not all(isinstance(entry, dict) for entry in _list_versions(stored)):
            raise ValueError(
                f"{file} is not what a run writes: expected one JSON object, got {_shorten(file.read_bytes())}. Use "
                "another folder, or remove this one with its answers."
            )
        return stored

    def list_versions(self) -> list[dict[str, str]]:
        """Return the versions of libraries that answers were made with, the first ones first."""
        return _list_versions(self._read_run())

    def _record_versions(self) -> None:
        """Add the versions of this process to those of the run."""
        stored = self._read_run()
        if self.versions not in (known := _list_versions(stored)):
            write_json(self.folder / "run.json", {**stored, LATER: [*known[1:], self.versions]}, sort_keys=True)

    def _drop_torn_line(self) -> None:
        """Cut off an unfinished last line of a killed process; its sample is asked again.

        Raises:
            ValueError: If what follows the last line is no beginning of an answer; it is left as it is.
        """
        check_file(self.file, "IDE3D_MAX_JSON_BYTES")
        with self.file.open("rb+") as stream:
            content = stream.read()
            end = content.rfind(b"\n") + 1
            if not (torn := content[end:]):
                return
            if not torn.startswith(b"{"):
                raise ValueError(
                    f"{self.file} ends in what no run writes: {_shorten(torn)}. It was left as it is: remove this end "
                    "of it, or the file, and run again."
                )
            logger.warning("%s ends in half an answer, which is cut off: %s.", self.file, _shorten(torn))
            stream.truncate(end)

    def read(self, find_fault: Callable[[dict[str, Any]], str | None] | None = None) -> dict[str, dict[str, Any]]:
        """Return the answers of all processes by sample id.

        Args:
            find_fault: Function that says what is wrong with an answer; None if nothing is. Default: nothing is.

        Raises:
            ValueError: If a line is no JSON object with an `id`, an id comes twice, or an answer has a fault; the
                message names file and line.
        """
        answers: dict[str, dict[str, Any]] = {}
        for file in sorted(self.folder.glob("answers.*.jsonl")):
            check_file(file, "IDE3D_MAX_JSON_BYTES")
            # Behind the last newline is nothing, or a line that another process is writing.
            for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
                row = _parse(line)
                if row is None:
                    fault = f"is no JSON: {_shorten(line)}"
                elif not isinstance(row, dict) or not isinstance(row.get("id"), str):
                    fault = f'must be a JSON object with the "id" of a sample, got {_shorten(line)}'
                elif row["id"] in answers:
                    fault = f"the answer to {row['id']!r} comes twice"
                else:
                    fault = find_fault(row) if find_fault else None
                if fault:
                    raise ValueError(f"{file}, line {number}: {fault}. Delete the line, and run again.")
                answers[row["id"]] = row
        return answers

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write answers, each with its `id`, and hand them to the disk."""
        if not self._is_recorded:
            self._record_versions()
            self._is_recorded = True
        append_text(self.file, "".join(json.dumps(row) + "\n" for row in rows))


def _parse(text: bytes) -> Any:
    """Return what JSON says; None where it is none."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None


def _list_versions(run: Any) -> list[Any]:
    """Return the versions in a `run.json`, those of its first answers first."""
    if not isinstance(run, dict):
        return []
    later = run.get(LATER, [])
    return [run.get(VERSIONS, {}), *(later if isinstance(later, list) else [later])]


def _tell(facts: Mapping[str, Any], key: str) -> str:
    return repr(facts[key]) if key in facts else UNKNOWN


def _tell_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return ", ".join(f"{name} {old.get(name, UNKNOWN)}, now {new.get(name, UNKNOWN)}" for name in names)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raise ValueError if a key comes twice."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _shorten(text: bytes) -> str:
    return repr(text[:60].decode(errors="replace")) + (" ..." if len(text) > 60 else "")
