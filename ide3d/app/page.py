"""The page: its components, what each act calls, and its server."""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported, which asks then

import gradio as gr

from ide3d.app.answers import DESCRIBE, HOW_FAR
from ide3d.app.handlers import PageHandlers, as_status
from ide3d.app.rooms import ROOM_NAMES
from ide3d.app.settings import PageSettings
from ide3d.nano import nano_model

__all__ = ["build_page", "launch_page"]

UPLOAD_CHECKS, UPLOAD_AGE = 300, 1800  # seconds between looks for old uploads, and their age
FONTS = ["system-ui", "sans-serif"]  # of the system: a web font would be loaded from elsewhere
CSS = """
.alert { color: #b00020; font-weight: 600; }
.dark .alert { color: #ff8a80; }
.view { width: 100%; height: 640px; border: 0; }
"""
LIMIT = (
    "The shipped model has seen rendered rooms alone: **its answers about a real room are not to be trusted.** It was "
    "never taught to describe."
)


def build_page(settings: PageSettings) -> gr.Blocks:
    """Build the page; `launch_page` serves it.

    Args:
        settings: Models and limits.
    """
    rooms = tempfile.TemporaryDirectory(prefix="ide3d-rooms-")
    handlers = PageHandlers(settings, Path(rooms.name))
    with gr.Blocks(title="IDE3D", analytics_enabled=False, delete_cache=(UPLOAD_CHECKS, UPLOAD_AGE)) as page:
        page.ide3d_handlers, page.ide3d_rooms = handlers, rooms  # the folder lives as long as the page
        _lay_out(handlers, settings)
        page.unload(handlers.close)
    page.queue(max_size=settings.max_queue, default_concurrency_limit=1)
    return page


def launch_page(
    settings: PageSettings,
    *,
    host: str | None = None,
    port: int | None = None,
    opens_browser: bool = False,
    is_blocking: bool = True,
) -> gr.Blocks:
    """Serve the page.

    Args:
        settings: Models and limits.
        host: Address to listen at; default: this machine alone, or what `GRADIO_SERVER_NAME` says.
        port: Port; default: the first free one from 7860, or what `GRADIO_SERVER_PORT` says.
        opens_browser: Whether to open it in the browser of this machine.
        is_blocking: Whether to wait until the server ends.

    Raises:
        OSError: If the port is not free.
    """
    page = build_page(settings)
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=opens_browser,
        prevent_thread_lock=not is_blocking,
        share=False,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        max_file_size=f"{settings.max_upload}mb",
        theme=gr.themes.Default(font=FONTS, font_mono=["monospace"]),
        css=CSS,
    )
    return page


def _lay_out(handlers: PageHandlers, settings: PageSettings) -> None:
    gr.Markdown("# IDE3D: ask about a room\nShow a video, ask about it, click an object, or type what to find.")
    model = gr.Dropdown(
        [_name_model(name) for name in settings.models],
        value=settings.models[0],
        allow_custom_value=settings.any_model,
        label="Model" + (": choose one, or type a folder or a name on the Hub" if settings.any_model else ""),
    )
    if str(nano_model()) in settings.models:
        gr.Markdown(LIMIT)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            video = gr.Video(
                label=f"Video: upload or record, at most {settings.max_upload} MB and {settings.max_seconds:g} s",
                sources=["upload", "webcam"],
                webcam_options=gr.WebcamOptions(mirror=False),
                height=260,
                elem_id="video",
            )
            with gr.Row():
                rooms = [gr.Button(name, size="sm", min_width=80) for name in ROOM_NAMES]
            status = gr.HTML(as_status("No video is open. Upload or record one, or take a room."), elem_id="status")
            chat = gr.Chatbot(
                label="Questions and answers", height=300, buttons=["copy"], feedback_options=None, elem_id="chat"
            )
            question = gr.Textbox(label="Question", placeholder="Is there a red chair in the room?", max_length=2000)
            ask = gr.Button("Ask", variant="primary")
            keeps_turns = gr.Checkbox(False, label="The model reads the questions and answers before, too")
            times = gr.HTML(as_status(""), elem_id="times")
        with gr.Column(scale=2, min_width=420):
            gallery = gr.Gallery(
                label="Frames that the model sees", columns=4, height=230, allow_preview=False, interactive=False,
                object_fit="contain", buttons=[], elem_id="frames",
            )  # fmt: skip
            big = gr.Image(
                label="One frame: click an object in it", interactive=False, buttons=[], height=480, elem_id="frame",
                alt_text="The chosen frame; its marks are named in the list of frames",
            )  # fmt: skip
            with gr.Row():
                frame = gr.Slider(0, 1, value=0, step=1, label="Frame", interactive=False)
                across = gr.Slider(0, 100, value=50, step=0.1, label="Place across, percent")
                down = gr.Slider(0, 100, value=50, step=0.1, label="Place down, percent")
            with gr.Row():
                mark = gr.Button("Mark this place")
                describe = gr.Button("Describe what is marked")
                distance = gr.Button("How far is what is marked?")
            marked = gr.HTML(as_status(""), elem_id="marked")
            description = gr.Textbox(label="What to find", placeholder="the red chair", max_length=500)
            find = gr.Button("Find", variant="primary")
            found = gr.HTML(as_status(""), elem_id="found")
            view = gr.HTML("", elem_id="view")
    fresh = [status, gallery, big, frame, chat, times, marked, found, view]
    computes: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
    looks: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
    opening = {"inputs": [video, model], "outputs": [*fresh, question], **computes}
    gr.on([video.upload, video.stop_recording, video.clear], handlers.open_video, **opening)
    for button in rooms:
        button.click(handlers.open_room, [button, model], [*fresh, question], **computes)
    frame.input(handlers.show_frame, frame, [status, big], **looks)
    gallery.select(_take_frame, None, frame, **looks).then(handlers.show_frame, frame, [status, big], **looks)
    marking = {"inputs": [frame, across, down], "outputs": [status, marked, gallery, big, view], **computes}
    big.select(_take_place, big, [across, down], **looks).then(handlers.mark, **marking)
    mark.click(handlers.mark, **marking)
    saying = {"outputs": [status, chat, question, times], **computes}
    gr.on([ask.click, question.submit], handlers.ask, [question, keeps_turns, chat], **saying)
    for button, words in ((describe, DESCRIBE), (distance, HOW_FAR)):
        button.click(handlers.ask, [gr.State(words), keeps_turns, chat], **saying)
    finding = {"outputs": [status, found, gallery, big, view, frame], **computes}
    gr.on([find.click, description.submit], handlers.find, [description, frame], **finding)


def _name_model(name: str) -> tuple[str, str]:
    return ("the shipped nano model" if name == str(nano_model()) else name, name)


def _take_frame(event: gr.SelectData) -> int:
    return int(event.index)


def _take_place(picture: Any, event: gr.SelectData) -> tuple[float, float]:
    """Return where a picture was clicked, in percent of its width and height."""
    height, width = picture.shape[:2]
    return tuple(
        min(100, round(100 * (at + 0.5) / side, 1)) for at, side in zip(event.index, (width, height), strict=True)
    )
