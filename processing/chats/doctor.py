"""Diagnosis of files of chats: rows that are no chats, media that cannot be read, duplicates, evaluated scenes."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from processing.argument_rules import as_path
from processing.chats.dialects import Chat, ChatError, parse_row
from processing.chats.files import read_rows
from processing.chats.held_out import find_places, list_benchmarks
from processing.chats.loading import check_chat_files
from processing.chats.media import find_media, read_media, read_pictures

__all__ = ["KINDS", "ChatDiagnosis", "ChatFinding", "ChatKind", "examine_chats"]

_EXAMPLES = 3  # findings of a kind in the text
_KEPT = 100  # findings of a kind in memory; the others are counted


@dataclass(frozen=True)
class ChatKind:
    """Kind of a finding.

    Attributes:
        stops: Whether the fault stops a training.
        fix: Advice in small letters, without a period.
    """

    stops: bool
    fix: str


@dataclass(frozen=True)
class ChatFinding:
    """Fault of a file of chats.

    Attributes:
        kind: Key of `KINDS`.
        place: Place of the row, or path of the file.
        detail: Observation.
    """

    kind: str
    place: str
    detail: str


KINDS = {
    "file-broken": ChatKind(True, "write or copy the file again"),
    "file-empty": ChatKind(True, "leave the file out"),
    "row-broken": ChatKind(True, "write the row as docs/chats.md says, or leave it out"),
    "no-answer": ChatKind(True, "give the answer, or leave the row out"),
    "placeholders": ChatKind(True, "write one <video> or <image> into the questions for each medium"),
    "media-missing": ChatKind(True, "get the file, correct its path, or name the folder of the media"),
    "media-unreadable": ChatKind(True, "copy or convert the file again, or leave its rows out"),
    "duplicate": ChatKind(False, "leave all but one out; the same chat is learned more than once"),
    "id-twice": ChatKind(False, "give each row an id of its own, if ids are used"),
    "evaluation-scene": ChatKind(False, "leave these rows out before a model is evaluated on that benchmark"),
}


@dataclass
class ChatDiagnosis:
    """All findings on files of chats.

    Attributes:
        files: Paths of the files.
        rows: Number of rows that are objects.
        chats: Number of rows that are chats to learn from.
        media: Number of different videos and pictures that were looked at.
        counts: Number of findings of each kind that there is.
        findings: The first 100 findings of each kind.
    """

    files: list[str]
    rows: int = 0
    chats: int = 0
    media: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[ChatFinding] = field(default_factory=list)

    def can_train(self) -> bool:
        """Return whether there are chats and no finding stops a training on them."""
        return bool(self.chats) and not any(KINDS[kind].stops for kind in self.counts)

    def add(self, kind: str, place: str, detail: str) -> None:
        """Count a finding, and keep the first of its kind; name its place once."""
        self.counts[kind] += 1
        if self.counts[kind] <= _KEPT:
            self.findings.append(ChatFinding(kind, place, detail.removeprefix(place).lstrip(",: ")))

    def as_dict(self) -> dict[str, Any]:
        """Return the report of `--json`: the numbers, and findings grouped by kind with their fixes."""
        kinds = [
            {"kind": kind, **asdict(KINDS[kind]), "count": self.counts[kind],
             "findings": [asdict(finding) for finding in self.findings if finding.kind == kind]}
            for kind in KINDS if self.counts[kind]
        ]  # fmt: skip
        numbers = {"rows": self.rows, "chats": self.chats, "media": self.media}
        return {"files": self.files, **numbers, "can_train": self.can_train(), "kinds": kinds}

    def as_text(self) -> str:
        """Return the report as text for people."""
        state = "can be trained on" if self.can_train() else "cannot be trained on"
        lines = [f"{self.rows} rows, {self.chats} chats about {self.media} videos and pictures: {state}."]
        for kind, meaning in KINDS.items():
            if not self.counts[kind]:
                continue
            weight = "stops a training" if meaning.stops else "note"
            lines += ["", f"{kind} ({weight}, {self.counts[kind]}). Fix: {meaning.fix}."]
            found = [finding for finding in self.findings if finding.kind == kind][:_EXAMPLES]
            lines += [f"    {finding.place}: {finding.detail}" for finding in found]
            if self.counts[kind] > len(found):
                lines.append(f"    and {self.counts[kind] - len(found)} more (--json lists the first {_KEPT})")
        return "\n".join(lines)


def examine_chats(files: Sequence[str], media_dir: str | Path | None = None) -> ChatDiagnosis:
    """Look at every row of files of chats, and at each of their media once.

    Nothing is changed, and no fault of the rows raises. Of a video file the packets are counted and the first frame is
    decoded, of a folder three frames are read. A row keeps some 30 bytes in memory, a medium about 100.

    Args:
        files: Paths of files that end with .json, .jsonl or .parquet.
        media_dir: Folder that relative paths of media begin in. Default: for each file its own folder.

    Raises:
        TypeError: If an argument is of another kind.
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no file, or one of them comes twice.
    """
    paths = check_chat_files(files)
    folder = None if media_dir is None else as_path(media_dir, "media_dir")
    diagnosis = ChatDiagnosis([str(path) for path in paths])
    places, ids, chats = _Places(), array("Q"), array("Q")
    seen: set[int] = set()
    evaluated: dict[int, tuple[int, str]] = {}
    for where, row in tqdm(_iterate(paths, diagnosis), desc="chats", unit="row", delay=2):
        places.append(where)
        ids.append(0 if row.get("id") is None else _digest(row["id"]))
        for place in find_places(_list_names(row)):
            if list_benchmarks(place):
                count, first = evaluated.get(place, (0, where))
                evaluated[place] = (count + 1, first)
        try:
            chat = parse_row(row, where)
        except ChatError as error:
            diagnosis.add(error.kind, where, str(error))
            chats.append(0)
            continue
        diagnosis.chats += 1
        own_folder = folder or Path(where.rpartition(", ")[0]).resolve().parent
        chats.append(_digest([str(own_folder), vars(chat)]))
        _look_at_media(chat, own_folder, where, seen, diagnosis)
    diagnosis.rows, diagnosis.media = len(places), len(seen)
    for kind, digests in (("duplicate", chats), ("id-twice", ids)):
        for again, first in _find_repeats(digests):
            if kind == "duplicate" or chats[again] != chats[first] or not chats[again]:
                diagnosis.add(kind, places[again], f"the same as {places[first]}")
    for place, (count, first) in sorted(evaluated.items()):
        detail = f"scene{place:04} is in {', '.join(list_benchmarks(place))}; {count} rows name it"
        diagnosis.add("evaluation-scene", first, detail)
    return diagnosis


class _Places:
    """Places of rows, such as "a.jsonl, line 3", in eight bytes each."""

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.starts: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def append(self, where: str) -> None:
        start, _, number = where.rpartition(" ")
        if not self.starts or self.starts[-1][1] != start:
            self.starts.append((len(self.numbers), start))
        self.numbers.append(int(number))

    def __getitem__(self, index: int) -> str:
        start = next(start for first, start in reversed(self.starts) if first <= index)
        return f"{start} {self.numbers[index]}"


def _iterate(paths: list[Path], diagnosis: ChatDiagnosis) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows that can be read; what cannot becomes a finding."""
    for path in paths:
        before = sum(diagnosis.counts.values())
        is_empty = True
        try:
            for where, row in read_rows(path, tell=lambda place, text: diagnosis.add("row-broken", place, text)):
                is_empty = False
                yield where, row
        except (ValueError, OSError) as error:
            diagnosis.add("file-broken", str(path), str(error))
        if is_empty and before == sum(diagnosis.counts.values()):
            diagnosis.add("file-empty", str(path), "it holds no row")


def _list_names(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a row that may name a scene.

    These are ids, names and paths, not the words of the chat.
    """
    for value in row.values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield text
    messages = row.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield from (value for key, value in part.items() if key != "text" and isinstance(value, str))


def _look_at_media(chat: Chat, folder: Path, where: str, seen: set[int], diagnosis: ChatDiagnosis) -> None:
    """Add findings on the media of a chat that no earlier row has."""
    for value in (*([] if chat.video is None else [chat.video]), *chat.images):
        is_video = value is chat.video
        key = _digest([str(folder), value, is_video])
        if key in seen:
            continue
        seen.add(key)
        try:
            if is_video:
                is_file = isinstance(value, str) and find_media(value, folder).is_file()
                read_media(value, folder, num_frames=1 if is_file else 3)
            else:
                read_pictures([value], folder)
        except FileNotFoundError as error:
            diagnosis.add("media-missing", where, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is a finding
            diagnosis.add("media-unreadable", where, f"{type(error).__name__}: {str(error)[:300]}")


def _digest(value: Any) -> int:
    text = json.dumps(value, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


def _find_repeats(digests: array) -> Iterator[tuple[int, int]]:
    """Yield the index of each value that came before, with its first index.

    A zero is no value.
    """
    if not digests:
        return
    values = np.frombuffer(digests, np.uint64)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    counts = np.diff(starts, append=len(ranked))
    is_repeated = (counts > 1) & (ranked[starts] > 0)
    for start, count in zip(starts[is_repeated], counts[is_repeated], strict=True):
        yield from ((int(order[place]), int(order[start])) for place in range(start + 1, start + count))
