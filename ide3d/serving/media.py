"""Chats in OpenAI's form: their texts, and the bytes of their pictures and videos."""

import base64
import binascii
import io
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from processing.downloads_ide3d import download, find_local_path
from processing.image_opening_ide3d import is_animation, is_image
from processing.limits import check_file

__all__ = ["MediaRules", "Medium", "read_chat"]

TEXT_TYPES = ("text", "input_text", "output_text")
URL_TYPES = ("image_url", "video_url")
KNOWN_TYPES = "text, image_url, video_url and file"


@dataclass(frozen=True)
class MediaRules:
    """Rules of pictures and videos: their origin and their size.

    Args:
        hosts: Hosts that URLs may name, wherever they lie; if empty, every public one. The environment variable
            `IDE3D_PRIVATE_URLS=1` opens private addresses to all of them.
        folder: Folder whose files `file:` URLs may name; None for no local file.
        max_bytes: Bytes of all pictures and videos of a request, at most.

    Raises:
        ValueError: If `max_bytes` is below 1, or `folder` is no folder.
    """

    hosts: frozenset[str] = frozenset()
    folder: Path | None = None
    max_bytes: int = 2**28

    def __post_init__(self):
        if self.max_bytes < 1:
            raise ValueError(f"`max_bytes` must be at least 1, got {self.max_bytes}.")
        if self.folder is not None and not Path(self.folder).is_dir():
            raise ValueError(f"`folder` must be a folder whose files may be read, got {self.folder}.")


@dataclass(frozen=True)
class Medium:
    """A picture or a video of a request.

    Args:
        kind: "image" or "video".
        content: Bytes of the file.
        digest: SHA-256 of the bytes: equal files are one medium.
    """

    kind: str
    content: bytes
    digest: str


def read_chat(messages: Any, rules: MediaRules) -> tuple[list[dict[str, Any]], list[Medium]]:
    """Read a chat of OpenAI's form.

    Args:
        messages: Messages whose content is a text, or parts of the types text, image_url, video_url and file. A URL
            is http, https, `data:` with base64, or `file:`.
        rules: Rules of what may be read.

    Returns:
        Messages as the chat template takes them, and their media in order.

    Raises:
        TypeError: If the chat, a message or a part is of another type.
        ValueError: If a part is of an unknown kind, is not allowed, or is larger than allowed.
        OSError: If a URL or file cannot be read.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise TypeError(f"`messages` must be a list of messages, got {reprlib.repr(messages)}.")
    chat: list[dict[str, Any]] = []
    media: list[Medium] = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(f"messages[{index}] must be an object with role and content, got {reprlib.repr(message)}.")
        content = message.get("content")
        if isinstance(content, list):
            parts = []
            for place, part in enumerate(content):
                left = rules.max_bytes - sum(len(medium.content) for medium in media)
                read = _read_part(part, f"messages[{index}].content[{place}]", rules, left)
                if isinstance(read, Medium):
                    media.append(read)
                    read = {"type": read.kind}
                parts.append(read)
            content = parts
        chat.append({"role": message.get("role"), "content": content})
    return chat, media


def _read_part(part: Any, where: str, rules: MediaRules, limit: int) -> Medium | dict[str, Any]:
    """Return a part of the chat template, or a picture or video."""
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise TypeError(f"{where} must be an object with a type, got {reprlib.repr(part)}.")
    kind = part["type"]
    if kind in TEXT_TYPES:
        return {"type": "text", "text": part.get("text")}
    given = part.get(kind)
    if kind in URL_TYPES:
        url = given.get("url") if isinstance(given, Mapping) else given
        if not isinstance(url, str):
            raise TypeError(f"{where} needs a URL in {kind}.url, got {reprlib.repr(given)}.")
        content = _read_url(url, where, rules, limit)
        return Medium(kind.partition("_")[0], content, sha256(content).hexdigest())
    if kind == "file":
        data = given.get("file_data") if isinstance(given, Mapping) else None
        if not isinstance(data, str):
            raise TypeError(f"{where} needs base64 in file.file_data: no file is kept here, so `file_id` is unknown.")
        content = _decode(data.partition(",")[2] if data.startswith("data:") else data, where, limit)
        is_picture = is_image(content) and not is_animation(content)
        return Medium("image" if is_picture else "video", content, sha256(content).hexdigest())
    raise ValueError(f"{where} has the type {kind!r:.50}; this model takes {KNOWN_TYPES}.")


def _read_url(url: str, where: str, rules: MediaRules, limit: int) -> bytes:
    if url.startswith("data:"):
        head, _, data = url.partition(",")
        if not head.endswith(";base64"):
            raise ValueError(
                f"{where}: a data: URL must be base64, such as data:video/mp4;base64,AAAA, got {head!r:.60}."
            )
        return _decode(data, where, limit)
    path = find_local_path(url)
    if path is None:
        file = io.BytesIO()
        download(url, file, limit, hosts=rules.hosts)
        return file.getvalue()
    if not url.lower().startswith("file:"):
        raise ValueError(f"{where}: expected a URL of http, https, data: or file:, got {url!r:.60}.")
    if rules.folder is None:
        raise ValueError(f"{where}: this server reads no local files. Send the file as base64.")
    resolved = Path(path).resolve()
    if not resolved.is_relative_to(Path(rules.folder).resolve()):
        raise ValueError(f"{where}: this server reads local files of one folder alone, and this is none of them.")
    _check_size(check_file(resolved, None), where, limit)
    return resolved.read_bytes()


def _decode(data: str, where: str, limit: int) -> bytes:
    _check_size(len(data) // 4 * 3 - 2, where, limit)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where} is no base64 ({error}). Encode the bytes of the file.") from error


def _check_size(size: int, where: str, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{where} has {size} bytes; {limit} are left for the pictures and videos of this request.")
