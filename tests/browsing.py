"""The page of `ide3d app` in a real browser: Debian's Chromium, driven by Playwright."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ide3d import nano_model
from ide3d.app.settings import PageSettings

# Without the background flags Chromium asks its maker's hosts at every start.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120_000  # milliseconds
NANO = str(nano_model())


def find_browser() -> str | None:
    """Path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def serve_page(**settings) -> Iterator[tuple[str, object]]:
    """Serve the page in threads; yield its address and its handlers."""
    from ide3d.app.page import launch_page

    chosen = PageSettings(**{"models": (NANO,), "device": "cpu", **settings})
    page = launch_page(chosen, host="127.0.0.1", is_blocking=False)
    try:
        yield page.local_url, page.ide3d_handlers
    finally:
        page.close()


@contextmanager
def start_browser() -> Iterator[object]:
    """Start a browser; yield it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A person with a browser window of their own.

    Args:
        browser: Browser of Playwright.
        url: Address of the page.
    """

    def __init__(self, browser, url: str, height: int = 1500):
        self.page = browser.new_context(viewport={"width": 1280, "height": height}).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(url)
        self.page.get_by_role("button", name="Room 1").wait_for()

    def read(self, name: str, words: str) -> str:
        """Wait until the element says these words, and return all it says."""
        self.page.wait_for_function("([id, words]) => document.getElementById(id).innerText.includes(words)",
                                    arg=[name, words])  # fmt: skip
        return self.page.locator(f"#{name}").inner_text()

    def upload(self, video: Path) -> None:
        """Upload a video in place of an earlier one."""
        if (clear := self.page.locator("#video").get_by_label("Clear")).count():
            clear.first.click()
            self.read("status", "No video is open.")
        self.page.locator("#video input[type=file]").set_input_files(video)

    def ask(self, question: str) -> str:
        """Ask a question and return the answer once it is whole."""
        said = self.page.locator("#chat .bot.message")
        before = said.count()
        self.page.get_by_label("Question", exact=True).fill(question)
        self.page.get_by_role("button", name="Ask", exact=True).click()
        return self._wait_for_answer(said, before)

    def press(self, name: str) -> str:
        """Press a button that asks, and return the answer."""
        said = self.page.locator("#chat .bot.message")
        before = said.count()
        self.page.get_by_role("button", name=name).click()
        return self._wait_for_answer(said, before)

    def _wait_for_answer(self, said, before: int) -> str:
        said.nth(before).wait_for()
        text, last = None, said.nth(before).inner_text()
        while text != last:
            time.sleep(1.5)
            text, last = last, said.nth(before).inner_text()
        return last.strip()

    def click_frame(self, across: float, down: float) -> str:
        """Click a place of the large frame, and return what the page says of it."""
        picture = self.page.locator("#frame img")
        box = picture.bounding_box()
        picture.click(position={"x": across * box["width"], "y": down * box["height"]})
        return self.read("marked", "Marked")

    def find(self, description: str) -> str:
        """Find a described object, and return what the page says of it."""
        self.page.get_by_label("What to find").fill(description)
        self.page.get_by_role("button", name="Find", exact=True).click()
        return self.read("found", f"{description}:")

    def leave(self) -> None:
        """Close the window."""
        self.page.context.close()
