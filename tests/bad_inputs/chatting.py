"""Cases of files of chats: damaged files, rows that are no chats, media that are not there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import goods
from bad_inputs.cases import ToldError, door
from bad_inputs.damage import FILES, NUMBERS, PATH_WORDS, PATHS

ANSWER = {"role": "assistant", "content": "It is near."}
# Rows that are no chats to learn from.
ROWS: dict[str, Any] = {
    "no chat": {"id": 1}, "a text": "Why?", "a list": [1], "both dialects": {"messages": [ANSWER], "conversations": []}, "messages a text": {"messages": "Why?"},
    "messages empty": {"messages": []}, "a message a text": {"messages": ["Why?"]}, "no role": {"messages": [{"content": "Why?"}]}, "another role": {"messages": [{"role": "tool", "content": "x"}, ANSWER]},
    "no content": {"messages": [{"role": "user"}, ANSWER]}, "content a number": {"messages": [{"role": "user", "content": 5}, ANSWER]}, "another part": {"messages": [{"role": "user", "content": [{"type": "audio"}]}, ANSWER]},
    "no answer": {"messages": [{"role": "user", "content": "Why?"}]}, "an empty answer": {"messages": [{"role": "assistant", "content": ""}]}, "a placeholder too many": {"messages": [{"role": "user", "content": "<image>"}, ANSWER]},
    "a video without a placeholder": {"video": "a.mp4", "messages": [ANSWER]}, "a placeholder in an answer": {"video": "a.mp4", "messages": [{"role": "assistant", "content": "<video>"}]},
    "two videos": {"videos": ["a", "b"], "messages": [{"role": "user", "content": "<video><video>"}, ANSWER]}, "a video of a number": {"video": 5, "messages": [{"role": "user", "content": "<video>"}, ANSWER]},
    "embedded bytes": {"image": {"bytes": "x"}, "messages": [{"role": "user", "content": "<image>"}, ANSWER]}, "a URL": {"video": "http://a/b.mp4", "messages": [{"role": "user", "content": "<video>"}, ANSWER]},
    "NUL in a path": {"video": "a\x00b", "messages": [{"role": "user", "content": "<video>"}, ANSWER]}, "from nobody": {"conversations": [{"from": None, "value": "x"}]},
}  # fmt: skip
MEDIA: dict[str, Any] = {
    "a missing file": "no.mp4", "a text file": "text.mp4", "an empty folder": "empty", "a missing frame": ["no.png"], "a name too long": "x" * 5000,
}  # fmt: skip


def _row(video: Any = None) -> dict[str, Any]:
    if video is None:
        return {"messages": [{"role": "user", "content": "Why?"}, ANSWER]}
    return {"video": video, "messages": [{"role": "user", "content": "<video>\nWhy?"}, ANSWER]}


def _load(file: Any) -> Any:
    """Read a file both ways; they refuse alike."""
    from processing.chats import load_chats, stream_chats

    list(stream_chats([file]))
    return list(load_chats([file], cache_dir=goods.root() / "cache"))


@door("files of chats", "processing.chats.load_chats", "processing.chats.stream_chats", "processing.chats.parse_chat",
      "processing.chats.Chat", "trainer.data.ChatDataset", "trainer.loop.ChatStream")  # fmt: skip
def chats(add: Callable[..., None]) -> None:
    def written(folder: Path, rows: list, name: str = "chats.json") -> str:
        (folder / name).write_text(
            json.dumps(rows) if name == "chats.json" else "".join(f"{json.dumps(row)}\n" for row in rows)
        )
        return str(folder / name)

    add("right: a list", lambda f: _load(written(f, [_row()])), expect="taken")
    add("right: lines", lambda f: _load(written(f, [_row()], "chats.jsonl")), expect="taken")
    for what, row in ROWS.items():
        for name, place in (("chats.json", "row 2"), ("chats.jsonl", "line 2")):
            add(f"{name}: {what}", lambda f, r=row, n=name: _load(written(f, [_row(), r], n)), place)

        def parse(folder: Path, /, row: Any = row) -> Any:
            from processing.chats import parse_chat

            return parse_chat(row, "row 7")

        if isinstance(row, dict):
            add(f"parse_chat: {what}", parse, "row 7")
    for what, change in FILES.items():
        for name in ("chats.json", "chats.jsonl", "chats.parquet"):

            def damage(folder: Path, /, change: Any = change, name: str = name) -> Any:
                if name == "chats.parquet":
                    from chat_files import write_rows

                    path = write_rows(folder / name, [_row(), _row()])
                else:
                    path = Path(written(folder, [_row(), _row()], name))
                path.write_bytes(change(path.read_bytes()))
                return _load(str(path))

            add(f"{name} {what}", damage, name, expect="refused" if what == "empty" else "either")
    for what, make in PATHS.items():
        if what not in ("a list",):
            add(f"path {what}", lambda f, m=make: _load(m(f)), *PATH_WORDS, "files", "path")
    for what, files in {"a text": "chats.json", "None": None, "no file": [], "a number in it": [5], "a mapping": {"a": 1}}.items():  # fmt: skip
        add(f"files {what}", lambda f, v=files: _load_files(v), "files")

    def dataset(folder: Path, /, video: Any = "frames", **options: Any) -> Any:
        from chat_files import write_picture

        from trainer.data import ChatDataset

        write_picture(folder / "frames" / "0.png")
        (folder / "empty").mkdir()
        (folder / "text.mp4").write_text("no video")
        given = {"media_dir": folder, "cache_dir": goods.root() / "cache", **options}
        return ChatDataset([written(folder, [_row(video)])], **given)[0]

    def stream(folder: Path, /, row: Any = None, **options: Any) -> Any:
        from trainer.loop import ChatStream

        return next(iter(ChatStream(**{"files": [written(folder, [row or _row()])], "batch": 2, **options})))

    add("right: a stream", stream, expect="taken")
    for what in ("no answer", "a URL"):
        add(f"stream: {what}", lambda f, r=ROWS[what]: stream(f, r), "row 1")
    for name in ("batch", "buffer_size", "num_frames"):
        for what, value in NUMBERS.items():
            expect = "either" if what == "huge" else "refused"
            add(f"stream: {name} {what}", lambda f, n=name, v=value: stream(f, **{n: v}), name, expect=expect)
    add("stream: media_dir a number", lambda f: stream(f, media_dir=5), "media_dir")
    add("stream: no file", lambda f: stream(f, files=[]), "files")
    add("right: a sample", dataset, expect="taken")
    for what, value in NUMBERS.items():
        expect = "either" if what == "huge" else "refused"
        add(f"num_frames {what}", lambda f, v=value: dataset(f, num_frames=v), "num_frames", expect=expect)
    add("media_dir missing", lambda f: dataset(f, media_dir=f / "no"), "row 1")
    add("media_dir a number", lambda f: dataset(f, media_dir=5), "media_dir")
    for what, video in MEDIA.items():
        add(f"media: {what}", lambda f, v=video: dataset(f, v), "row 1")


@door("doctor of chats", "processing.chats.examine_chats")
def doctor(add: Callable[..., None]) -> None:
    def examine(
        folder: Path,
        /,
        rows: list | None = None,
        content: bytes | None = None,
        name: str = "chats.json",
        **options: Any,
    ) -> Any:
        """Let the doctor look; what it finds is told."""
        from processing.chats import examine_chats

        path = folder / name
        path.write_bytes(json.dumps([_row()] if rows is None else rows).encode() if content is None else content)
        diagnosis = examine_chats(**{"files": [str(path)], **options})
        if not diagnosis.can_train():
            raise ToldError(diagnosis.as_text())
        return diagnosis

    add("right: a list", examine, expect="taken")
    for what, row in ROWS.items():
        add(f"row {what}", lambda f, r=row: examine(f, [_row(), r]), "row 2", "chats.json")
    for what, change in FILES.items():
        content = json.dumps([_row(), _row()]).encode()
        add(f"file {what}", lambda f, c=change, b=content: examine(f, content=c(b)), "chats.json", expect="either")
    for what, video in MEDIA.items():
        add(f"media {what}", lambda f, v=video: examine(f, [_row(v)]), "row 1")
    for what, files in {"a text": "chats.json", "None": None, "no file": [], "a number in it": [5], "a missing file": ["no.json"]}.items():  # fmt: skip
        add(f"files {what}", lambda f, v=files: examine(f, files=v), "files", "no.json")
    add("media_dir a number", lambda f: examine(f, media_dir=5), "media_dir")


def _load_files(files: Any) -> Any:
    from processing.chats import load_chats

    return load_chats(files)


@door("media of chats", "processing.chats.read_media")
def media(add: Callable[..., None]) -> None:
    def read(folder: Path, /, video: Any = "frames", **options: Any) -> Any:
        from chat_files import write_picture

        from processing.chats import read_media

        write_picture(folder / "frames" / "0.png")
        (folder / "empty").mkdir()
        (folder / "text.mp4").write_text("no video")
        return read_media(video, **{"folder": folder, **options})

    add("right: frames", read, expect="taken")
    for what, video in MEDIA.items():
        add(what, lambda f, v=video: read(f, v), "no.", "text.mp4", "empty", "path", "xxx")
    for what, value in NUMBERS.items():
        expect = "either" if what == "huge" else "refused"
        add(f"num_frames {what}", lambda f, v=value: read(f, num_frames=v), "num_frames", expect=expect)
    for what, value in {"None": None, "a number": 5, "no frames": [], "a number in it": [5], "a mapping": {"path": "a"}}.items():  # fmt: skip
        add(f"video {what}", lambda f, v=value: read(f, v), "video")
    add("folder a number", lambda f: read(f, folder=5), "folder")
    for name in ("has_geometry", "skip_invalid_poses"):
        add(f"{name} a text", lambda f, n=name: read(f, **{n: "no"}), name)
