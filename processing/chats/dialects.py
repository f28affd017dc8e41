"""Chats of other people's files in one form: `messages` with typed parts, and the `conversations` of LLaVA."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from processing.chat_rules_ide3d import check_chat
from processing.image_opening_ide3d import is_image_path

__all__ = ["Chat", "ChatError", "parse_chat", "parse_row"]

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MEDIA = {"video": ("video", "videos"), "image": ("image", "images")}
# A line break behind a placeholder is the template's own.
_PLACEHOLDER = re.compile(r"<(video|image)>\n?")


class ChatError(ValueError):
    """A row that is no chat to learn from; `kind` is "row-broken", "placeholders" or "no-answer"."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Chat:
    """A chat about at most one video and any number of pictures.

    Attributes:
        messages: Messages with role and content; a content is a list of parts of the type text, video or image.
        video: Path of the video as the row has it: a file, or a folder of frames; or the paths of its frames.
        images: Paths of the pictures, in the order of the image parts.
    """

    messages: list[dict[str, Any]]
    video: str | list[str] | None = None
    images: tuple[str, ...] = ()


def parse_chat(row: Mapping[str, Any], where: str = "the row") -> Chat:
    """Return the chat of a row in either dialect.

    `messages` has `role` and `content`, a text or typed parts; `conversations` has `from` and `value`. The row names
    its media as `video`, `videos`, `image` or `images`. `<video>` and `<image>` in the texts, and parts without a
    path, stand for them in turn. Or a part has its own path, as `video`, `image`, `path` or `url`. Where a row has a
    video and no picture, `<image>` stands for the video, as in LLaVA-Video's files.

    Args:
        row: Row of a file.
        where: Place of the row, in messages.

    Raises:
        ValueError: If it is no chat, has no answer, or its placeholders are not as many as its media.
    """
    try:
        return parse_row(row, where)
    except ChatError as error:  # a name that is ours alone: callers know ValueError
        raise ValueError(str(error)) from error


def parse_row(row: Mapping[str, Any], where: str) -> Chat:
    """Return the chat of a row as `parse_chat` does; ChatError says the kind of fault."""
    given = [key for key in ("messages", "conversations") if row.get(key) is not None]
    if len(given) != 1:
        problem = "both" if given else f"the keys {reprlib.repr(sorted(map(str, row)))}"
        raise ChatError("row-broken", f"{where} must have `messages` or `conversations`, got {problem}.")
    media = {kind: _list_media(row, kind, where) for kind in MEDIA}
    try:
        messages = row[given[0]]
        if isinstance(messages, (list, tuple)):  # `check_chat` refuses what is no list
            messages = [_as_message(entry) for entry in messages]
        check_chat(messages, f"`{given[0]}`")
    except (TypeError, ValueError) as error:
        raise ChatError("row-broken", f"{where}: {error}") from error
    stands_for = {"video": "video", "image": "video" if media["video"] and not media["image"] else "image"}
    named: dict[str, list[Any]] = {"video": [], "image": []}
    parsed = [_parse_message(message, stands_for, media, named, where) for message in messages]
    for kind, paths in media.items():
        if paths:
            raise ChatError(
                "placeholders",
                f"{where} has {len(paths)} {kind}s without a placeholder: write a <{kind}> for each into a question.",
            )
    if len(named["video"]) > 1:
        raise ChatError("placeholders", f"{where} has {len(named['video'])} videos; a chat is about one. Split it.")
    answers = [message for message in parsed if message["role"] == "assistant"]
    if not answers or not all("".join(part["text"] for part in message["content"]).strip() for message in answers):
        raise ChatError("no-answer", f"{where} has no answer, or an empty one: leave it out, or give the answer.")
    return Chat(parsed, named["video"][0] if named["video"] else None, tuple(named["image"]))


def _as_message(entry: Any) -> dict[str, Any]:
    """Return a message with role and content of either dialect."""
    if not isinstance(entry, Mapping):
        raise TypeError(f"expected messages with role and content, or from and value, got {reprlib.repr(entry)}.")
    speaker = entry.get("role", entry.get("from"))
    if not isinstance(speaker, str) or speaker.lower() not in ROLES:
        raise ValueError(f"a message is from one of {', '.join(ROLES)}, got {reprlib.repr(speaker)}.")
    return {"role": ROLES[speaker.lower()], "content": entry.get("content", entry.get("value"))}


def _list_media(row: Mapping[str, Any], kind: str, where: str) -> list[Any]:
    """Return the media of one kind that a row names beside its chat."""
    found: list[Any] = []
    for key in MEDIA[kind]:
        value = row.get(key)
        if isinstance(value, list) and kind == "video" and value and all(map(is_image_path, value)):
            value = [value]  # frames of one video
        for entry in value if isinstance(value, list) else [] if value in (None, "") else [value]:
            found.append(_check_media(entry, kind, f"{where}: `{key}`"))
    return found


def _check_media(value: Any, kind: str, what: str) -> str | list[str]:
    if kind == "video" and isinstance(value, list) and value and all(map(is_image_path, value)):
        return [_check_media(frame, "image", what) for frame in value]
    if not isinstance(value, str) or not value:
        expected = "a path as text" + (", or a list of paths of frames" if kind == "video" else "")
        raise ChatError(
            "row-broken", f"{what} must be {expected}, got {reprlib.repr(value)}. Write embedded media to files."
        )
    if "\0" in value or "://" in value.removeprefix("file://") or value.startswith("data:"):
        raise ChatError("row-broken", f"{what} must be a path of a file or folder, got {reprlib.repr(value)}.")
    return value.removeprefix("file://")


def _parse_message(
    message: dict[str, Any], stands_for: dict[str, str], media: dict[str, list], named: dict[str, list], where: str
) -> dict[str, Any]:
    """Return a message with typed parts; what it names goes from `media` to `named`."""
    parts: list[dict[str, str]] = []

    def see(kind: str, own: Any = None) -> None:
        if message["role"] == "assistant":
            raise ChatError(
                "placeholders", f"{where}: an answer holds a placeholder <{kind}>; media belong to questions."
            )
        kind = stands_for[kind] if own is None else kind
        if own is None and not media[kind]:
            raise ChatError("placeholders", f"{where} has more <{kind}> placeholders than `{kind}` paths.")
        named[kind].append(media[kind].pop(0) if own is None else _check_media(own, kind, f"{where}: a {kind} part"))
        parts.append({"type": kind})

    content = message["content"]
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part["type"]
        if kind in MEDIA:
            see(kind, next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None))
        elif kind == "text":
            pieces = _PLACEHOLDER.split(part["text"])
            for place, piece in enumerate(pieces):
                if place % 2:
                    see(piece)
                elif piece:
                    parts.append({"type": "text", "text": piece})
        else:
            raise ChatError(
                "row-broken", f"{where}: a part has the type text, video or image, got {reprlib.repr(kind)}."
            )
    return {"role": message["role"], "content": parts or [{"type": "text", "text": ""}]}
