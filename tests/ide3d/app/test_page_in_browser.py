"""The page in a real browser: upload, ask, click, find, a broken file, and two people at once."""

import time

import pytest
from browsing import NANO, Visitor, find_browser, serve_page, start_browser

from trainer.session import open_video

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the extra `app` is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
if find_browser() is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)


@pytest.fixture(scope="module")
def served():
    with serve_page(max_upload=1) as served:
        yield served


@pytest.fixture(scope="module")
def browser():
    with start_browser() as browser:
        yield browser


@pytest.fixture
def visitor(browser, served):
    visitor = Visitor(browser, served[0])
    yield visitor
    assert visitor.problems == []
    visitor.leave()


def test_upload_ask_click_find_and_nothing_comes_from_elsewhere(visitor, served, room):
    visitor.upload(room.video)
    assert "The model sees 4 of 4 frames." in visitor.read("status", "room.mp4 is open.")
    assert visitor.page.locator("#frames img").count() == 4
    question = "How far is the table from the camera?"
    assert visitor.ask(question) == open_video(NANO, room.video, device="cpu").ask([question])[0]
    assert "First token after" in visitor.read("times", "First token")
    assert "seen in the frames" in visitor.click_frame(0.5, 0.8)
    assert "meters" in visitor.press("How far is what is marked?")
    assert "region" in visitor.find("the orange cabinet")
    view = visitor.page.frame_locator("#view iframe")
    view.locator("canvas").wait_for()
    assert "the orange cabinet" in view.locator("table").inner_text()
    assert "no such object" in visitor.find("the red chair")
    assert {url.partition("/gradio_api")[0].split("/")[2] for url in visitor.requests if url.startswith("http")} == {
        served[0].split("/")[2]
    }


def test_the_keyboard_does_what_the_pointer_does(visitor):
    page = visitor.page
    page.get_by_role("button", name="Room 2").focus()
    page.keyboard.press("Enter")
    visitor.read("status", "Room 2 is open.")
    page.get_by_role("button", name="Mark this place").focus()
    page.keyboard.press("Enter")
    visitor.read("marked", "Marked")
    page.get_by_label("What to find").focus()
    page.keyboard.type("the orange cabinet")
    page.keyboard.press("Enter")
    visitor.read("found", "the orange cabinet:")


def test_a_broken_file_and_one_that_is_too_large_are_told(visitor, served, room, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(room.video.read_bytes()[:700])
    visitor.upload(tmp_path / "broken.mp4")
    visitor.read("status", "broken.mp4")
    assert visitor.page.get_by_role("alert").filter(has_text="broken.mp4").count() == 1
    visitor.upload(room.video)
    visitor.read("status", "room.mp4 is open.")
    visitor.page.reload()
    visitor.page.get_by_role("button", name="Room 1").wait_for()
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_000))
    visitor.upload(tmp_path / "large.mp4")
    visitor.page.get_by_text("exceed the maximum allowed size").first.wait_for()


def test_two_people_at_once_see_their_own_room_alone(browser, served):
    handlers = served[1]
    before = len(handlers.shelf)
    one, two = Visitor(browser, served[0]), Visitor(browser, served[0])
    one.page.get_by_role("button", name="Room 1").click()
    two.page.get_by_role("button", name="Room 2").click()
    one.read("status", "Room 1 is open.")
    two.read("status", "Room 2 is open.")
    assert len(handlers.shelf) == before + 2
    one.page.get_by_label("Question", exact=True).fill("How many tables are in the room?")
    one.page.get_by_role("button", name="Ask", exact=True).click()
    two.find("the table")
    one.read("times", "First token")
    assert "Room 2" in two.page.locator("#view iframe").get_attribute("title")
    assert one.page.locator("#view iframe").count() == 0 and two.page.locator("#chat .bot.message").count() == 0
    stranger = Visitor(browser, served[0])
    stranger.page.get_by_role("button", name="Mark this place").click()
    stranger.read("status", "No video is open. Upload or record one")
    for each in (one, two, stranger):
        each.leave()
    for _ in range(60):  # the server hears of it within seconds
        if len(handlers.shelf) == before:
            break
        time.sleep(1)
    assert len(handlers.shelf) == before
