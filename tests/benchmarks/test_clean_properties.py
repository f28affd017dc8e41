"""The clean column of `clean_properties.py` holds what the README says; the paper column is the original's."""

import pytest
from benchmarks import clean_properties, pixel_shifts, room_views


@pytest.fixture(scope="module")
def scenes():
    return room_views.make_scenes(20)


@pytest.mark.parametrize("image_size", [384, 378])
def test_a_ramp_lands_on_the_same_tokens_by_every_path(image_size):
    clean, paper = (pixel_shifts.measure_shifts(image_size, 14, protocol) for protocol in ("clean", "paper"))
    assert all(largest < 1e-3 for _, largest in clean.values()), clean
    assert paper["image"][1] < 1e-3 and paper["region"][1] < 1e-3
    # 384 px squashed onto 378: 3 px on average, less half a pixel that taking the corner adds on the other side.
    assert (paper["depth"][0] > 2 and paper["depth"][1] >= 5) == (image_size == 384)


@pytest.mark.parametrize("zoom", [pytest.param(1.0, marks=pytest.mark.slow), 1.5])
def test_masks_are_what_rays_say_in_twenty_rooms(scenes, zoom):
    views = scenes if zoom == 1.0 else room_views.make_scenes(20, zoom=zoom)
    found = clean_properties.measure_covisibility(views)
    precision, recall = found["clean"]
    assert precision >= 0.99 and recall >= 0.95, found
    assert found["paper"][0] < precision and found["paper"][1] < recall


def test_consistency_compares_two_views(scenes):
    scaled, exact, wrong = clean_properties.measure_consistency(scenes[:6]).values()
    assert scaled["clean"] == 0.0 and scaled["paper"] > 0.1
    assert exact["clean"] < 0.01  # Rooms are not flat, and coarse pixels cut corners.
    assert wrong["clean"] > 25 * exact["clean"]


def test_holes_are_no_points(scenes):
    assert clean_properties.measure_points(scenes[0]) == {"clean": 0, "paper": 1000}


def test_pairs_of_shuffled_frames_share_more_by_overlap(scenes):
    identical, shares = clean_properties.measure_pairs(room_views.make_scenes(4, size=32, views=8))
    assert identical[1:] == ("0", "1")
    by_overlap, by_order = (float(cell.split()[0]) for cell in shares[1:])
    assert by_overlap > by_order + 0.03


def test_nan_shows_zeros_keep_the_graph_and_cameras_their_precision(scenes):
    nan, zero, mixed = clean_properties.measure_numerics(scenes[0])
    assert nan[1] == "3 of 3" and nan[2] == "1 of 3"
    assert zero[1:] == ("in the graph", "in the graph")
    assert float(mixed[1].split()[0]) < 0.01 and mixed[1].endswith("the same")
