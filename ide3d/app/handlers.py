"""Handlers of the page: values for its components, and errors as words in it."""

import html
import logging
from collections.abc import Callable, Iterator
from functools import wraps
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import gradio as gr

from ide3d.app.answers import DESCRIBE, HOW_FAR, find_object, list_pictures, mark_object, stream_words
from ide3d.app.rooms import render_room
from ide3d.app.scenes import OpenScene, SceneShelf
from ide3d.app.settings import PageSettings
from ide3d.nano import nano_model
from trainer.drawing.frames import draw_frame
from trainer.drawing.pages import render_page

__all__ = ["PageHandlers", "as_status"]

logger = logging.getLogger(__name__)

TOLD = (OSError, ValueError, TypeError, ImportError)  # errors whose message is written for the visitor
SHOWN_REQUESTS = {DESCRIBE: "Describe the marked object.", HOW_FAR: "How far is the marked object from the camera?"}
BIG_WIDTH = 640  # pixels of the frame that is clicked
# A page of its own, without the rights of this one: it loads nothing and can reach nothing.
VIEW = '<iframe title="{title}" sandbox="allow-scripts" srcdoc="{page}" class="view"></iframe>'


def as_status(words: str, is_error: bool = False) -> str:
    """Return words as an element that screen readers say when it changes."""
    role = "alert" if is_error else "status"
    return f'<div role="{role}" class="{role}">{html.escape(words)}</div>'


def tells_errors(handler: Callable) -> Callable:
    """Return a handler that tells errors in the status; other components stay."""

    def told(error: Exception, count: int) -> list[Any]:
        logger.info("Told a visitor: %s", error)
        return [as_status(str(error) or type(error).__name__, is_error=True), *[gr.skip()] * count]

    if isgeneratorfunction(handler):

        @wraps(handler)
        def stream(self: "PageHandlers", *given: Any) -> Iterator[list[Any]]:
            try:
                yield from handler(self, *given)
            except TOLD as error:
                yield told(error, self.outputs[handler.__name__])

        return stream

    @wraps(handler)
    def answer(self: "PageHandlers", *given: Any) -> list[Any]:
        try:
            return handler(self, *given)
        except TOLD as error:
            return told(error, self.outputs[handler.__name__])

    return answer


class PageHandlers:
    """Handlers of a page. Each gets the visitor's request last and returns a status first.

    Args:
        settings: Models and limits.
        rooms: Folder that keeps rendered rooms.
    """

    # Components behind the status.
    outputs = {"open_video": 9, "show_frame": 1, "mark": 4, "ask": 3, "find": 5}

    def __init__(self, settings: PageSettings, rooms: Path):
        self.settings, self.rooms = settings, Path(rooms)
        self.shelf = SceneShelf(settings)

    @tells_errors
    def open_video(self, video: str | None, model: str, request: gr.Request) -> list[Any]:
        """Open an uploaded or recorded video."""
        if video is None:
            self.close(request)
            return self._empty("No video is open.")
        title = Path(video).name
        try:
            return self._open(video, title, model, f"{title} is open.", request)
        except TOLD as error:  # the folder of uploads is no business of the visitor
            raise type(error)(str(error).replace(str(Path(video)), title)) from error

    @tells_errors
    def open_room(self, room: str, model: str, request: gr.Request) -> list[Any]:
        """Open a rendered room."""
        folder, words = render_room(room, self.rooms)
        return self._open(folder, room, model, f"{room} is open. There are {words}.", request)

    outputs["open_room"] = outputs["open_video"]

    def _open(self, video: Path | str, title: str, model: str, words: str, request: gr.Request) -> list[Any]:
        opened = self.shelf.open(request.session_hash, model, video, title)
        count = len(opened.scene.frames)
        words = f"{words} The model sees {count} of {opened.scene.total_frames} frames."
        return [
            as_status(words),
            list_pictures(opened.drawing),
            _big(opened, 0),
            gr.update(maximum=max(count - 1, 1), value=0, interactive=count > 1),
            [],
            as_status(""),
            as_status(""),
            as_status(""),
            "",
            None,
        ]

    def _empty(self, words: str) -> list[Any]:
        cleared = as_status("")
        return [as_status(words), [], None, gr.update(value=0), [], cleared, cleared, cleared, "", None]

    @tells_errors
    def show_frame(self, frame: float, request: gr.Request) -> list[Any]:
        """Show a frame large, by its number."""
        opened = self.shelf.get(request.session_hash)
        return [gr.skip(), _big(opened, min(int(frame), len(opened.scene.frames) - 1))]

    @tells_errors
    def mark(self, frame: float, across: float, down: float, request: gr.Request) -> list[Any]:
        """Mark the object at a place of a frame, in percent of its sides."""
        opened = self.shelf.get(request.session_hash)
        words = mark_object(opened, int(frame), (across / 100, down / 100))
        return [gr.skip(), as_status(words), list_pictures(opened.drawing), _big(opened, int(frame)), _view(opened)]

    @tells_errors
    def ask(self, question: str, keeps_turns: bool, chat: list[Any], request: gr.Request) -> Iterator[list[Any]]:
        """Answer a question, word by word."""
        opened = self.shelf.get(request.session_hash)
        shown = SHOWN_REQUESTS.get(question, question)
        asked = [*chat, {"role": "user", "content": shown}]
        growing = stream_words(
            opened,
            question,
            keeps_turns=keeps_turns,
            max_tokens=self.settings.max_tokens,
            max_seconds=self.settings.answer_seconds,
        )
        for answer in growing:
            words = (
                f"First token after {answer.first_seconds:.2f} s, {answer.tokens} tokens in {answer.seconds:.2f} s."
            )
            if answer.is_cut:
                words += f" Cut after {self.settings.answer_seconds:g} s."
            said = {"role": "assistant", "content": answer.text or "(no word)"}
            yield [gr.skip(), [*asked, said], "", as_status(words)]

    @tells_errors
    def find(self, description: str, frame: float, request: gr.Request) -> list[Any]:
        """Find a described object and light it up."""
        opened = self.shelf.get(request.session_hash)
        is_nano = opened.model == str(nano_model())
        words = find_object(opened, description, is_nano=is_nano)
        shown = opened.drawing.marks[0].masks.any((1, 2)).nonzero()[0] if opened.drawing.marks else []
        first = int(shown[0]) if len(shown) else int(frame)
        return [gr.skip(), as_status(words), list_pictures(opened.drawing), _big(opened, first), _view(opened), first]

    def close(self, request: gr.Request) -> None:
        """Forget the scene of a visitor who has left."""
        self.shelf.close(request.session_hash)


def _big(opened: OpenScene, frame: int) -> Any:
    return draw_frame(opened.drawing, frame, BIG_WIDTH)


def _view(opened: OpenScene) -> str:
    """Return the page of a drawing, with its 3D view, in an inner frame."""
    return VIEW.format(title=html.escape(f"3D view of {opened.title}"), page=html.escape(render_page(opened.drawing)))
