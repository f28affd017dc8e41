"""The demo's report on what the demo leaves, and on folders that are damaged."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.demo.report import write_report

REPOSITORY = Path(__file__).parents[3]
VIEWS, ROWS, COLS = 4, 6, 6  # of the scenes in `folder`


class Tags(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("</style>")[1]).split())


def test_page_needs_nothing_else(folder):
    report = write_report(folder)
    page = report.read_text(encoding="utf-8")
    tags = Tags(page)

    assert report == folder / "report.html" and not tags.open
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "link", "iframe", "a"})
    images = [attributes["src"] for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 4 and all(source.startswith("data:image/png;base64,iVBOR") for source in images)
    assert not re.search(r"https?://|url\(|@import", page)


def test_page_tells_scores_checks_and_run(folder):
    words = words_of(write_report(folder).read_text(encoding="utf-8"))

    assert "FAILED 1 of 2 checks passed" in words
    assert "\u2717 failed colour beats its baselines 30 &lt; 50" in words
    assert "distance 100 62% \u00b1 5 20% 21% 35% 40% above all, by 22.0 points" in words
    assert "distance 100 30% \u00b1 5 61% \u00b1 5 20% 21% 35% 40% above all, by 21.0 points" in words
    assert "20.0 points below words alone" in words  # colour, where two baselines were not measured
    assert "70% \u00b1 6 20% above chance, +50.0 points" in words
    assert "10% \u00b1 4 60% \u00b1 7 20% above chance, +40.0 points" in words
    assert "30% \u2192 61% mean over question types" in words and "+31.0 \u00b1 2.0 points gained" in words
    assert "0.111 depth error AbsRel" in words and "0.333 AbsRel of one constant" in words
    assert "2,000,000 parameters in training" in words and "1,600,000 parameters in the export" in words
    assert "400,000 parameters left behind" in words
    assert "training 301.5 s" in words and "all 304 s" in words
    assert "are used in training only" in words and "another process" in words


def test_answers_before_and_after_stand_side_by_side_and_words_are_escaped(folder):
    page = write_report(folder).read_text(encoding="utf-8")
    words = words_of(page)

    assert "Find the &lt;big&gt; lamp." in words and "<big>" not in page
    assert "distance How far is the &lt;big&gt; chair? 9 meters \u2713 2.4 meters 2.4 meters" in words
    assert "counting How many lamps are in the room? &lt;ground&gt; \u2717 2 1" in words
    assert "distance How far is the &lt;big&gt; chair? \u2713 2.4 meters 2.4 meters" in words  # as shipped
    assert words.count("before fine-tuning red sofa, now") == 2


def test_picture_fits_a_readme(folder):
    write_report(folder)
    picture = folder / "picture.png"

    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width == 1200
    assert picture.stat().st_size < 400_000


@pytest.mark.parametrize("name", ["summary.json", "log_history.json", "scenes/fine_tuned/room_1.npz"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_no_scenes(folder):
    for file in (folder / "scenes" / "shipped").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="scenes/shipped"):
        write_report(folder)


@pytest.mark.parametrize(
    "name", ["summary.json", "log_history.json", "scenes/shipped/room_s.json", "scenes/fine_tuned/room_1.npz"]
)
def test_truncated_file(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{file.name}.*damaged"):
        write_report(folder)


@pytest.mark.parametrize("entry", ["depth", "checks", "shipped"])
def test_summary_misses_an_entry(folder, entry):
    summary = json.loads((folder / "summary.json").read_text())
    del summary[entry]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=f"misses {entry}"):
        write_report(folder)


def test_percentages_are_refused(folder):
    summary = json.loads((folder / "summary.json").read_text())
    summary["shipped"]["scores"][0]["model"] = 62.0
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="from 0 to 1, got 62.0"):
        write_report(folder)


@pytest.mark.parametrize(("name", "shape"), [("found_mask", (VIEWS, ROWS, COLS + 1)), ("depth", (VIEWS, 9, 9))])
def test_arrays_that_do_not_fit(folder, name, shape):
    file = folder / "scenes" / "fine_tuned" / "room_1.npz"
    with np.load(file) as data:
        arrays = dict(data)
    np.savez_compressed(file, **{**arrays, name: np.zeros(shape, arrays[name].dtype)})
    with pytest.raises(ValueError, match=f"room_1: {name} must have shape"):
        write_report(folder)


@pytest.mark.slow
def test_command_line(folder):
    script = [sys.executable, "-m", "examples.demo.report"]
    done = subprocess.run([*script, str(folder)], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0 and Path(done.stdout.strip()).is_file(), done.stderr

    (folder / "summary.json").unlink()
    failed = subprocess.run([*script, str(folder)], capture_output=True, text=True, cwd=REPOSITORY)
    assert failed.returncode == 1 and "summary.json" in failed.stderr and "Traceback" not in failed.stderr
