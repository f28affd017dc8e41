"""Handlers of the page, without a browser: what components get, and errors that the visitor reads in the page."""

from html import unescape
from types import SimpleNamespace

import pytest

from ide3d import nano_model
from ide3d.app.settings import PageSettings

gradio = pytest.importorskip("gradio", reason="the extra `app` is not installed")

from ide3d.app.handlers import PageHandlers  # noqa: E402 (needs gradio)
from ide3d.app.page import build_page  # noqa: E402

NANO = str(nano_model())
ANNA, BEN = SimpleNamespace(session_hash="anna"), SimpleNamespace(session_hash="ben")


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return PageHandlers(PageSettings((NANO,), device="cpu", max_tokens=16), tmp_path_factory.mktemp("rooms"))


def test_a_video_is_opened_asked_marked_and_searched(handlers, room):
    status, pictures, big, *_ = handlers.open_video(str(room.video), NANO, ANNA)
    assert "room.mp4 is open. The model sees 4 of 4 frames." in status and 'role="status"' in status
    assert len(pictures) == 4 and big.width == 640
    *_, (_, chat, question, times) = handlers.ask("How far is the table from the camera?", False, [], ANNA)
    assert [message["role"] for message in chat] == ["user", "assistant"] and question == ""
    assert "meters" in chat[1]["content"] and "First token after" in times
    _, words, pictures, _, view = handlers.mark(0, 50, 80, ANNA)
    assert "Marked" in words and "marked object" in pictures[0][1]
    assert view.startswith('<iframe title="3D view of room.mp4" sandbox="allow-scripts" srcdoc="&lt;!doctype')
    _, words, pictures, _, view, frame = handlers.find("the blue table", 0, ANNA)
    assert "the blue table: region" in words and "blue table" in pictures[frame][1] and "1 box, 1 camera" in view


def test_a_broken_file_is_told_in_the_words_of_the_reader_without_the_place_of_uploads(handlers, room, tmp_path):
    broken = tmp_path / "<b>.mp4"
    broken.write_bytes(room.video.read_bytes()[:700])
    status, *others = handlers.open_video(str(broken), NANO, ANNA)
    assert 'role="alert"' in status and "&lt;b&gt;.mp4" in status and str(tmp_path) not in status
    assert len(others) == handlers.outputs["open_video"]
    with pytest.raises(ValueError) as error:
        handlers.shelf.open("x", NANO, broken, "x")
    assert str(error.value).replace(str(broken), "<b>.mp4") in unescape(status)


def test_visitors_do_not_see_each_other(handlers, room):
    handlers.open_video(str(room.video), NANO, ANNA)
    status, *_ = handlers.show_frame(0, BEN)
    assert "No video is open" in status
    ((status, *_),) = handlers.ask("What is there?", False, [], BEN)
    assert "No video is open" in status
    handlers.close(ANNA)
    assert "No video is open" in handlers.find("the lamp", 0, ANNA)[0]


@pytest.mark.parametrize("words", ["", "  ", "<video>", "Is <ground> red?"])
def test_questions_that_cannot_be_asked_are_told(handlers, room, words):
    handlers.open_video(str(room.frames), NANO, ANNA)
    ((status, *others),) = handlers.ask(words, False, [], ANNA)
    assert 'role="alert"' in status and len(others) == handlers.outputs["ask"]


def test_rooms_come_along_and_say_what_is_in_them(handlers):
    status, pictures, *_ = handlers.open_room("Room 1", NANO, ANNA)
    assert "Room 1 is open. There are the blue table" in status and len(pictures) == 4
    assert 'role="alert"' in handlers.open_room("Room 9", NANO, ANNA)[0]
    assert "No video is open." in handlers.open_video(None, NANO, ANNA)[0]


def test_each_handler_has_as_many_values_as_the_page_has_places():
    page = build_page(PageSettings((NANO,)))
    counts = {
        function.fn.__name__: len(function.outputs)
        for function in page.fns.values()
        if function.fn.__name__ in PageHandlers.outputs
    }
    assert counts == {name: count + 1 for name, count in PageHandlers.outputs.items()}


def test_the_page_has_a_label_for_each_field_and_opens_no_function_to_programs():
    page = build_page(PageSettings((NANO,), max_queue=3))
    fields = [
        block
        for block in page.blocks.values()
        if isinstance(block, gradio.components.FormComponent | gradio.Gallery | gradio.Image | gradio.Video)
    ]
    assert len(fields) >= 9 and all(block.label for block in fields)
    own = [function for function in page.fns.values() if function.fn.__name__ in PageHandlers.outputs]
    assert {function.api_visibility for function in own} == {"private"}
    assert page._queue.max_size == 3
    computing = [function for function in own if function.fn.__name__ != "show_frame"]
    assert {(function.concurrency_limit, function.concurrency_id) for function in computing} == {(1, "model")}
