"""Styles of rooms: the plain one stays what it was, the others differ in looks and build but not in words."""

import colorsys
import hashlib

import numpy as np
import pytest

from processing.rooms import load_rooms
from processing.rooms.generate import make_room
from processing.rooms.measure import measure_rooms
from processing.rooms.scene.furniture import FLOOR_PIECES
from processing.rooms.scene.loft_furniture import LOFT_PIECES
from processing.rooms.scene.palette import COLOURS
from processing.rooms.scene.styles import LOFT, PLAIN, STYLES

SHAPE = {"image_size": 32, "num_frames": 2, "num_proc": 1}


@pytest.fixture(scope="module")
def loft_rooms():
    return [make_room("train", 0, index, 32, 2, "loft") for index in range(12)]


def test_plain_rooms_stay_what_they_were():
    """Models were trained on them: the facts of this room must not depend on the styles that come to be."""
    room, row = make_room("train", 0, 0, 32, 2)
    facts = [
        (thing["category"], thing["colour"], thing["feature"], [round(x, 4) for x in thing["box"]])
        for thing in row["objects"]
    ]
    materials = [[part.material.colour for part in thing.parts] for thing in room.objects]
    materials = np.concatenate([np.ravel(colours) for colours in materials]).round(4).tolist()
    digest = hashlib.sha256(repr((row["scene_id"], facts, materials)).encode()).hexdigest()
    assert digest.startswith("fc2e32a514706086")


def test_all_styles_name_the_same_colours_and_none_shares_a_shade():
    assert all(tuple(style.colours) == COLOURS for style in STYLES.values())
    for name in COLOURS:
        plain, loft = np.array(PLAIN.colours[name]), np.array(LOFT.colours[name])
        # Further apart than the jitter of one shade, which moves none of the three by as much as this.
        assert np.abs(plain - loft).max() > 0.07, name
    hues = {name: colorsys.rgb_to_hsv(*shade)[0] for name, shade in LOFT.colours.items()}
    hues = sorted(hue for name, hue in hues.items() if name not in ("white", "black"))
    gaps = np.diff([*hues, hues[0] + 1])
    assert gaps.min() > 0.06  # still told apart by hue


def test_loft_rooms_hold_the_same_kinds_in_another_build(loft_rooms):
    assert set(LOFT_PIECES) < set(FLOOR_PIECES)
    for name in LOFT_PIECES:
        pieces = [
            build(np.random.default_rng(0), "blue", style)
            for build, style in ((FLOOR_PIECES[name], PLAIN), (LOFT_PIECES[name], LOFT))
        ]
        assert pieces[0].category == pieces[1].category == name and pieces[0].colour == pieces[1].colour
        low, high = pieces[1].extent
        assert low[2] == pytest.approx(0, abs=1e-6) and high[2] > 0.2, name
        assert all(support.z == pytest.approx(high[2]) for support in pieces[1].supports)
    kinds = {thing.category for room, _ in loft_rooms for thing in room.objects}
    assert {thing.category for room, _ in loft_rooms for thing in room.objects if thing.place == "floor"} & set(
        LOFT_PIECES
    )
    assert kinds <= {*FLOOR_PIECES, "vase", "box", "ball", "picture", "clock", "shelf", "pendant"}


def test_loft_rooms_are_of_their_own_sizes(loft_rooms):
    for room, _ in loft_rooms:
        shell = room.shell
        for value, (low, high) in ((shell.width, LOFT.width), (shell.depth, LOFT.depth), (shell.height, LOFT.height)):
            assert low <= value <= high


def test_styles_share_no_room_and_no_name():
    plain, loft = (load_rooms("test", 3, style=style, **SHAPE) for style in ("plain", "loft"))
    assert loft["scene_id"] == [f"loft_test_0_{index:06d}" for index in range(3)]
    assert plain["scene_id"] == [f"test_0_{index:06d}" for index in range(3)]
    assert all(
        [thing["category"] for thing in one["objects"]] != [thing["category"] for thing in other["objects"]]
        for one in plain
        for other in loft
    )
    # Read from the cache, each style finds its own.
    assert load_rooms("test", 3, style="loft", **SHAPE)["scene_id"] == loft["scene_id"]


def test_loft_rooms_ask_about_everything(loft_rooms):
    asked = {(q["type"], q["reference"]) for _, row in loft_rooms for q in row["questions"]}
    words = ("existence", "counting", "colour", "direction", "closer", "distance", "position", "grounding")
    assert {(kind, "word") for kind in words} <= asked


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="`style` must be one of 'plain', 'loft', 'furnished', got 'attic'"):
        load_rooms("train", 2, style="attic")


def test_the_measurement_takes_a_style():
    measured = measure_rooms(num_scenes=2, style="loft", image_size=32, num_frames=2, num_proc=1)
    assert measured.style == "loft" and measured.baselines
