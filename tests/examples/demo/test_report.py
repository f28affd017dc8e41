"""The demo's report on what the demo leaves, and on folders that are damaged."""

import importlib
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[3]
VIEWS, SIDE, ROWS, COLS = 4, 48, 6, 6


@pytest.fixture
def demo_report():
    return importlib.import_module("examples.demo.report")


@pytest.fixture
def demo_pictures():
    return importlib.import_module("examples.demo.pictures")


def answer(kind: str, question: str, said: str, truth: str, **more: str) -> dict:
    return {"type": kind, "question": question, "answer": said, "truth": truth, "is_right": said == truth, **more}


def block(top: int, left: int) -> np.ndarray:
    mask = np.zeros((VIEWS, ROWS, COLS), bool)
    mask[:, top : top + 2, left : left + 2] = True
    return mask


def write_scene(folder: Path, name: str, found: np.ndarray, truth: np.ndarray, is_tuned: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = [{"before": "9 meters"}, {"before": "<ground>"}] if is_tuned else [{}, {}]
    answers = [
        answer("distance", "How far is the <big> chair?", "2.4 meters", "2.4 meters", **said[0]),
        answer("counting", "How many lamps are in the room?", "2", "1", **said[1]),
    ]
    facts = {"scene_id": name, "request": "Find the <big> lamp.", "found": "lamp", "truth": "lamp"}
    facts |= {"is_right": bool((found == truth).all()), "answers": answers}
    (folder / f"{name}.json").write_text(json.dumps(facts | ({"before": "red sofa"} if is_tuned else {})))
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.stack([y * 5, x * 5, (x + y) * 2], axis=-1).astype(np.uint8)
    depth = np.broadcast_to(1 + (x + y) / SIDE, (VIEWS, SIDE, SIDE)).astype(np.float32).copy()
    predicted = {"predicted_depth": depth[:, ::2, ::2] * 1.05} if is_tuned else {}
    depth[:, 0] = 0  # no measurement
    np.savez_compressed(
        folder / f"{name}.npz",
        frames=np.stack([np.roll(picture, 4 * view, axis=1) for view in range(VIEWS)]),
        depth=depth,
        found_mask=found,
        true_mask=truth,
        **predicted,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    score = {"type": "distance", "n": 100, "majority": 0.2, "text": 0.21, "mean_row": 0.35, "bottom_row": 0.4}
    summary = {
        "shipped": {
            "scores": [
                {**score, "model": 0.62},
                {**score, "type": "colour", "model": 0.3, "text": 0.5, "mean_row": None, "bottom_row": None},
            ],
            "grounding": {"n": 50, "model": 0.7, "chance": 0.2},
        },
        "fine_tuned": {
            "scores": [{**score, "before": 0.3, "after": 0.61}],
            "mean": {"before": 0.3, "after": 0.61, "gain": 0.31, "standard_error": 0.02},
            "grounding": {"n": 50, "before": 0.1, "after": 0.6, "chance": 0.2},
        },
        "depth": {"abs_rel": 0.111, "abs_rel_constant": 0.333, "delta_1.25": 0.87},
        "seconds": {"training": 301.5, "export": 2.0},
        "parameters": {"training": 2_000_000, "export": 1_600_000},
        "rooms": {"train": 1500, "test": 100},
        "checks": [
            {"name": "distance beats its baselines", "passed": True, "detail": "62 against 40"},
            {"name": "colour beats its baselines", "passed": False, "detail": "30 < 50"},
        ],
        "passed": False,
    }
    history = [{"step": n, "loss": 5 * math.exp(-n / 9), "loss_depth": 1 / n, "epoch": 1.0} for n in range(1, 30)]
    history += [{"step": 29, "eval_loss": 1.0}, {"step": 30, "train_loss": 2.0}]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "log_history.json").write_text(json.dumps(history))
    nothing, region = np.zeros((VIEWS, ROWS, COLS), bool), block(3, 3)
    write_scene(tmp_path / "scenes" / "shipped", "room_s", region, region, is_tuned=False)
    write_scene(tmp_path / "scenes" / "fine_tuned", "room_0", nothing, region)
    write_scene(tmp_path / "scenes" / "fine_tuned", "room_1", region, region)
    return tmp_path


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


def test_page_needs_nothing_else(demo_report, folder):
    report = demo_report.write_report(folder)
    page = report.read_text(encoding="utf-8")
    tags = Tags(page)

    assert report == folder / "report.html" and not tags.open
    assert {tag for tag, _ in tags.found}.isdisjoint({"script", "link", "iframe", "a"})
    images = [attributes["src"] for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 4 and all(source.startswith("data:image/png;base64,iVBOR") for source in images)
    assert not re.search(r"https?://|url\(|@import", page)


def test_page_tells_scores_checks_and_run(demo_report, folder):
    words = words_of(demo_report.write_report(folder).read_text(encoding="utf-8"))

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


def test_answers_before_and_after_stand_side_by_side_and_words_are_escaped(demo_report, folder):
    page = demo_report.write_report(folder).read_text(encoding="utf-8")
    words = words_of(page)

    assert "Find the &lt;big&gt; lamp." in words and "<big>" not in page
    assert "distance How far is the &lt;big&gt; chair? 9 meters \u2713 2.4 meters 2.4 meters" in words
    assert "counting How many lamps are in the room? &lt;ground&gt; \u2717 2 1" in words
    assert "distance How far is the &lt;big&gt; chair? \u2713 2.4 meters 2.4 meters" in words  # as shipped
    assert words.count("before fine-tuning red sofa, now") == 2


def test_picture_fits_a_readme(demo_report, folder):
    demo_report.write_report(folder)
    picture = folder / "picture.png"

    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width == 1200
    assert picture.stat().st_size < 400_000


def test_large_pictures_get_a_palette(demo_pictures, folder):
    scene = demo_pictures.Scene.load(folder / "scenes" / "fine_tuned" / "room_1.json")
    noise = np.random.default_rng(0).integers(0, 256, (VIEWS, 400, 400, 3), dtype=np.uint8)
    depth = np.ones((VIEWS, 400, 400), np.float32)
    demo_pictures.draw_story(
        demo_pictures.Scene(scene.facts, noise, depth, scene.found_mask, scene.true_mask, depth),
        folder / "noise.png",
    )

    assert (folder / "noise.png").stat().st_size < 400_000
    with Image.open(folder / "noise.png") as image:
        assert image.mode == "P"


def test_outline_is_the_border_of_the_cells(demo_pictures):
    mask = np.zeros((2, 4), bool)
    mask[0, :2] = True
    segments = {frozenset(segment) for segment in demo_pictures.outline(mask)}

    assert segments == {
        frozenset(segment)
        for segment in [
            ((0.0, 0.0), (0.25, 0.0)),
            ((0.25, 0.0), (0.5, 0.0)),
            ((0.0, 0.5), (0.25, 0.5)),
            ((0.25, 0.5), (0.5, 0.5)),
            ((0.0, 0.0), (0.0, 0.5)),
            ((0.5, 0.0), (0.5, 0.5)),
        ]
    }


def test_scene_picture_shows_found_and_true_region(demo_pictures, folder):
    figure = demo_pictures.draw_scene(demo_pictures.Scene.load(folder / "scenes" / "fine_tuned" / "room_0.json"))
    figure.canvas.draw()
    rgb, predicted, true = figure.axes[:3]

    drawn = [tuple(lines.get_colors()[0][:3]) for lines in rgb.collections if len(lines.get_segments())]
    truth = tuple(int(demo_pictures.TRUTH[k : k + 2], 16) / 255 for k in (1, 3, 5))
    found = tuple(int(demo_pictures.FOUND[k : k + 2], 16) / 255 for k in (1, 3, 5))
    assert any(np.allclose(colour, truth) for colour in drawn)
    assert not any(np.allclose(colour, found) for colour in drawn)  # the model said "no such object"
    assert predicted.images[0].get_clim() == true.images[0].get_clim()  # one colour scale for both depths
    assert true.images[0].get_array().mask[0].all()  # 0 is "no measurement", not "very close"


def test_scene_without_validator_shows_frames_alone(demo_pictures, folder):
    figure = demo_pictures.draw_scene(demo_pictures.Scene.load(folder / "scenes" / "shipped" / "room_s.json"))
    assert len(figure.axes) == VIEWS and all(axes.images for axes in figure.axes)


def test_many_frames_are_thinned_out(demo_pictures):
    assert demo_pictures.shown_views(3) == [0, 1, 2]
    views = demo_pictures.shown_views(32)
    assert len(views) == 6 and views[0] == 0 and views[-1] == 31


def test_losses_have_a_plot_each(demo_pictures, folder):
    history = json.loads((folder / "log_history.json").read_text())
    figure = demo_pictures.draw_losses([*history, {"step": 31, "loss_grounding": 1.0}])

    assert [axes.get_title(loc="left").split("  ")[0] for axes in figure.axes] == ["total", "grounding", "depth"]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "log"]
    with pytest.raises(ValueError, match="none of loss"):
        demo_pictures.draw_losses([{"step": 1, "epoch": 2.0}])


@pytest.mark.parametrize("name", ["summary.json", "log_history.json", "scenes/fine_tuned/room_1.npz"])
def test_missing_file(demo_report, folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        demo_report.write_report(folder)
    assert not (folder / "report.html").exists()


def test_no_scenes(demo_report, folder):
    for file in (folder / "scenes" / "shipped").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="scenes/shipped"):
        demo_report.write_report(folder)


@pytest.mark.parametrize(
    "name", ["summary.json", "log_history.json", "scenes/shipped/room_s.json", "scenes/fine_tuned/room_1.npz"]
)
def test_truncated_file(demo_report, folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{file.name}.*damaged"):
        demo_report.write_report(folder)


@pytest.mark.parametrize("entry", ["depth", "checks", "shipped"])
def test_summary_misses_an_entry(demo_report, folder, entry):
    summary = json.loads((folder / "summary.json").read_text())
    del summary[entry]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=f"misses {entry}"):
        demo_report.write_report(folder)


def test_percentages_are_refused(demo_report, folder):
    summary = json.loads((folder / "summary.json").read_text())
    summary["shipped"]["scores"][0]["model"] = 62.0
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="from 0 to 1, got 62.0"):
        demo_report.write_report(folder)


@pytest.mark.parametrize(("name", "shape"), [("found_mask", (VIEWS, ROWS, COLS + 1)), ("depth", (VIEWS, 9, 9))])
def test_arrays_that_do_not_fit(demo_report, folder, name, shape):
    file = folder / "scenes" / "fine_tuned" / "room_1.npz"
    with np.load(file) as data:
        arrays = dict(data)
    np.savez_compressed(file, **{**arrays, name: np.zeros(shape, arrays[name].dtype)})
    with pytest.raises(ValueError, match=f"room_1: {name} must have shape"):
        demo_report.write_report(folder)


def test_command_line(folder):
    script = [sys.executable, "-m", "examples.demo.report"]
    done = subprocess.run([*script, str(folder)], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0 and Path(done.stdout.strip()).is_file(), done.stderr

    (folder / "summary.json").unlink()
    failed = subprocess.run([*script, str(folder)], capture_output=True, text=True, cwd=REPOSITORY)
    assert failed.returncode == 1 and "summary.json" in failed.stderr and "Traceback" not in failed.stderr
