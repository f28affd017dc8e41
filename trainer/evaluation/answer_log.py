"""Answers on disk, one line each, so that a killed run goes on where it stopped."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from processing.writing import write_json

__all__ = ["AnswerLog"]


class AnswerLog:
    """Append-only JSONL of answers by sample id, beside a file that identifies the run.

    Each process writes a file of its own; all are read, so a run may go on with another number of processes.

    Args:
        folder: Output folder of the run; made if it does not exist.
        identity: Facts that all answers of a run share: model, prompts, frames, protocol and so on.
        rank: Rank of this process.

    Raises:
        ValueError: If the folder holds answers of another run; the differences are named.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], rank: int = 0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / f"answers.{rank:05d}.jsonl"
        self._check_identity(dict(identity))
        self._drop_torn_line()

    def _check_identity(self, identity: dict[str, Any]) -> None:
        file = self.folder / "run.json"
        wanted = json.loads(json.dumps(identity))
        if not file.exists():
            if any(self.folder.glob("answers.*.jsonl")):
                raise ValueError(f"{self.folder} holds answers, but no `run.json` of their run. Use another folder.")
            write_json(file, wanted, sort_keys=True)  # several processes write the same
            return
        stored = json.loads(file.read_text(encoding="utf-8"))
        changed = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
        if changed:
            lines = [f"  {key}: {stored.get(key)!r}, now {wanted.get(key)!r}" for key in changed]
            raise ValueError(
                f"{self.folder} holds answers of another run. Changed:\n"
                + "\n".join(lines)
                + "\nGo on with what it was, or choose another output folder."
            )

    def _drop_torn_line(self) -> None:
        """Cut off an unfinished last line of a killed process; its sample is asked again."""
        if not self.file.exists():
            return
        with self.file.open("rb+") as stream:
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the answers of all processes by sample id.

        Raises:
            ValueError: If a line is no JSON, or an id comes twice.
        """
        answers: dict[str, dict[str, Any]] = {}
        for file in sorted(self.folder.glob("answers.*.jsonl")):
            *lines, torn = file.read_text(encoding="utf-8").split("\n")
            del torn  # empty, or a line that another process is writing
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{file}, line {number} is no JSON: delete the line, and run again.") from error
                if row["id"] in answers:
                    raise ValueError(f"{file}, line {number}: the answer to {row['id']!r} comes twice; delete one.")
                answers[row["id"]] = row
        return answers

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write answers, each with its `id`, and hand them to the disk."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows))
            stream.flush()
            os.fsync(stream.fileno())
