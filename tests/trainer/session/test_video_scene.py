"""A model and a stored video opened by their names: which region is found, where, and which frames were shown."""

import numpy as np
import pytest
import torch
from exporting import NUM_FRAMES, build_model, build_processor, write_video

from processing.region_files import NamedRegions
from trainer.export import export_inference_model
from trainer.session import SceneSession, load_inference_model, open_video, show_video


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    processor = build_processor()
    return export_inference_model(build_model(processor), processor, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def scene(export, tmp_path_factory):
    return open_video(export, write_video(tmp_path_factory.mktemp("video") / "room.mp4", count=9), device="cpu")


def regions(scene, **frames):
    """Regions of one cell each, in the frames with these places among those shown."""
    rows, cols = scene.session.token_grid.shape
    masks = torch.zeros(len(frames), len(scene.frame_indices), rows, cols, dtype=torch.bool)
    for index, places in enumerate(frames.values()):
        masks[index, places, 0, index] = True
    return NamedRegions(tuple(frames), masks)


def test_frames_are_spread_over_the_video_and_counted_in_it(scene, export, tmp_path):
    assert scene.frame_indices == (0, 2, 5, 8) and scene.total_frames == 9 and scene.session.num_frames == NUM_FRAMES
    fewer = open_video(export, write_video(tmp_path / "room.mp4"), num_frames=2, device="cpu")
    assert fewer.frame_indices == (0, 5) and fewer.session.num_frames == 2
    assert fewer.frames.shape == (2, *scene.frames.shape[1:]) and np.array_equal(fewer.frames[0], scene.frames[0])


def test_a_loaded_model_sees_the_same_and_no_video_that_is_too_long(scene, export, tmp_path):
    video = write_video(tmp_path / "room.mp4", count=9)  # 5 frames a second
    loaded = load_inference_model(export, device="cpu")
    shown = show_video(*loaded, video, max_seconds=2)
    assert shown.frame_indices == scene.frame_indices and np.array_equal(shown.frames, scene.frames)
    assert shown.ask(["Where?"]) == scene.ask(["Where?"])
    with pytest.raises(ValueError, match="has 2 s, more than the 1.5 s that are taken"):
        show_video(*loaded, video, max_seconds=1.5)


@pytest.mark.parametrize(
    ("cosines", "name", "frames", "score"),
    [
        ([0.1, 0.9, 0.3], "table", (2, 8), 0.9),
        ([0.4, 0.2, 0.3], "chair", (0,), 0.4),
        ([0.1, 0.2, 0.3], None, (), 0.3),
    ],
)
def test_the_best_region_wins_unless_nothing_fits_better(scene, monkeypatch, cosines, name, frames, score):
    monkeypatch.setattr(SceneSession, "ground", lambda self, descriptions, masks, template: torch.tensor([cosines]))
    (found,) = scene.find(["a lamp"], regions(scene, chair=[0], table=[1, 3]))
    assert (found.description, found.name, found.frames) == ("a lamp", name, frames)
    assert found.score == pytest.approx(score) and found.no_object == pytest.approx(0.3)
    assert found.scores == pytest.approx({"chair": cosines[0], "table": cosines[1]})


def test_a_file_of_regions_is_read_for_the_frames_shown(scene, tmp_path):
    ids = np.zeros((9, 48, 64), np.int32)
    ids[2, :20, :20], ids[3, 30:, 30:] = 4, 5
    np.save(tmp_path / "ids.npy", ids)
    found = scene.read_regions(tmp_path / "ids.npy")
    assert found.names == ("4",) and found.masks[0].flatten(1).any(1).tolist() == [False, True, False, False]


def test_regions_are_found_and_described_by_name(scene):
    marked = regions(scene, chair=[0], table=[1, 3])
    first, second = scene.find(["the lamp", "on the table"], marked)
    cosines = scene.session.ground(["the lamp", "on the table"], marked.masks)
    assert list(first.scores.values()) == cosines[0, :2].tolist() and second.no_object == cosines[1, 2].item()
    asked = scene.find(["the lamp"], marked, template="Where is {description}?")[0]
    assert asked.scores == scene.find(["Where is the lamp?"], marked, template="{description}")[0].scores
    assert asked.scores != first.scores
    described = scene.describe(marked, max_new_tokens=4)
    assert list(described) == ["chair", "table"]
    assert described["table"] == scene.session.describe(marked.masks[1:], max_new_tokens=4)[0]


def test_what_is_found_by_the_pictures_alone_is_counted_in_the_video(scene):
    (found,) = scene.find(["the lamp"])
    among = scene.find(["the lamp"], scene.session.propose())[0]
    own = scene.session.find("the lamp")
    assert found == among and (found.name, *found.others) == (own.names or (None,))
    assert set(found.frames) <= set(scene.frame_indices) and bool(found.frames) == bool(len(own))
    assert list(found.scores) == list(scene.session.propose().names) and found.no_object == own.no_object
