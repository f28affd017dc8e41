"""Pictures of rooms and plots of losses."""

import json

import numpy as np
import pytest
from PIL import Image

from examples.demo.losses import plot_losses
from examples.demo.pictures import FOUND, TRUTH, outline, render_scene, shown_views
from examples.demo.scene import Scene
from examples.demo.story import render_story

VIEWS = 4  # of the scenes in `folder`


def test_large_pictures_get_a_palette(folder):
    scene = Scene.load(folder / "scenes" / "fine_tuned" / "room_1.json")
    noise = np.random.default_rng(0).integers(0, 256, (VIEWS, 400, 400, 3), dtype=np.uint8)
    depth = np.ones((VIEWS, 400, 400), np.float32)
    render_story(
        Scene(scene.facts, noise, depth, scene.found_mask, scene.true_mask, depth),
        folder / "noise.png",
    )

    assert (folder / "noise.png").stat().st_size < 400_000
    with Image.open(folder / "noise.png") as image:
        assert image.mode == "P"


def test_outline_is_the_border_of_the_cells():
    mask = np.zeros((2, 4), bool)
    mask[0, :2] = True
    segments = {frozenset(segment) for segment in outline(mask)}

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


def test_scene_picture_shows_found_and_true_region(folder):
    figure = render_scene(Scene.load(folder / "scenes" / "fine_tuned" / "room_0.json"))
    figure.canvas.draw()
    rgb, predicted, true = figure.axes[:3]

    outlined = [tuple(lines.get_colors()[0][:3]) for lines in rgb.collections if len(lines.get_segments())]
    truth = tuple(int(TRUTH[k : k + 2], 16) / 255 for k in (1, 3, 5))
    found = tuple(int(FOUND[k : k + 2], 16) / 255 for k in (1, 3, 5))
    assert any(np.allclose(colour, truth) for colour in outlined)
    assert not any(np.allclose(colour, found) for colour in outlined)  # the model said "no such object"
    assert predicted.images[0].get_clim() == true.images[0].get_clim()  # one colour scale for both depths
    assert true.images[0].get_array().mask[0].all()  # 0 is "no measurement", not "very close"


def test_scene_without_validator_shows_frames_alone(folder):
    figure = render_scene(Scene.load(folder / "scenes" / "shipped" / "room_s.json"))
    assert len(figure.axes) == VIEWS and all(axes.images for axes in figure.axes)


def test_many_frames_are_thinned_out():
    assert shown_views(3) == [0, 1, 2]
    views = shown_views(32)
    assert len(views) == 6 and views[0] == 0 and views[-1] == 31


def test_losses_have_a_plot_each(folder):
    history = json.loads((folder / "log_history.json").read_text())
    figure = plot_losses([*history, {"step": 31, "loss_grounding": 1.0}])

    assert [axes.get_title(loc="left").split("  ")[0] for axes in figure.axes] == ["total", "grounding", "depth"]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "log"]
    with pytest.raises(ValueError, match="none of loss"):
        plot_losses([{"step": 1, "epoch": 2.0}])
