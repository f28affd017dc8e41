"""What a session found or described is drawn with its region, its score and the frames' own numbers."""

import numpy as np
import pytest
import torch
from exporting import build_model, build_processor

from processing.oriented_boxes import CameraBox
from processing.region_files import NamedRegions
from trainer.drawing import Cameras, draw_boxes, draw_described, draw_found
from trainer.session import FoundRegion, SaidBoxes, SceneSession, VideoScene

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def scene():
    processor = build_processor()
    session = SceneSession(build_model(processor).eval(), processor, FRAMES, do_sample_frames=False)
    return VideoScene(session, (3, 7), 9, FRAMES)


@pytest.fixture
def regions(scene):
    masks = torch.zeros(2, 2, *scene.session.token_grid.shape, dtype=torch.bool)
    masks[0, 1, 0, 0] = masks[1, :, 1, 1] = True
    return NamedRegions(("a", "b"), masks)


def found(name, **fields):
    given = {"description": "the lamp", "score": 0.4, "frames": (7,), "scores": {"a": 0.4}, "no_object": 0.1}
    return FoundRegion(**{**given, "name": name, **fields})


def test_found_regions_are_marks_and_the_rest_are_notes(scene, regions):
    drawing = draw_found(scene, [found("a"), found(None, description="the cat", score=0.2)], regions)
    (mark,) = drawing.marks
    assert (mark.label, mark.score) == ("the lamp (a)", 0.4) and mark.masks[1, 0, 0] and mark.masks.sum() == 1
    assert drawing.notes == ("the cat: no such object, score 0.200",)
    assert drawing.frame_names == ("3", "7") and drawing.grid == scene.session.token_grid
    assert np.array_equal(drawing.frames, FRAMES)


def test_what_the_session_proposed_is_drawn_without_its_regions(scene):
    proposals = scene.session.propose()
    names = proposals.names[:2]
    scores = dict(zip(proposals.names, np.linspace(0.9, 0.1, len(proposals)), strict=True))
    entry = found(names[0], others=names[1:], scores=scores, score=0.9)
    drawing = draw_found(scene, [entry])
    assert [(mark.label, mark.score) for mark in drawing.marks] == [
        (f"the lamp ({name})", scores[name]) for name in names
    ]
    assert np.array_equal(drawing.marks[0].masks, proposals.masks[0])


def test_descriptions_stand_beside_their_regions(scene, regions):
    drawing = draw_described(scene, {"b": "a red chair"}, regions)
    assert drawing.marks[0].label == "b: a red chair" and drawing.marks[0].masks.sum() == 2


def test_what_was_not_among_the_regions_is_told(scene, regions):
    with pytest.raises(ValueError, match="names the region 'z', which is not among"):
        draw_found(scene, [found("z")], regions)
    with pytest.raises(ValueError, match="names the region 'z', which is not among"):
        draw_described(scene, {"z": "x"}, regions)
    with pytest.raises(ValueError, match="keeps no frames to draw"):
        draw_found(VideoScene(scene.session, (3, 7), 9), [], regions)


def test_said_boxes_are_marks_in_their_frames_and_the_rest_are_notes(scene):
    box = CameraBox(1, (0.5, 0.25, 2.0), (1.0, 0.5, 0.25), 0.0)
    said = [
        SaidBoxes("the lamp", "", (box, box)),
        SaidBoxes("the cat", "[]", ()),
        SaidBoxes("the bed", "x", None, "It is no JSON."),
    ]
    drawing = draw_boxes(scene, said)
    assert [(mark.label, mark.frame) for mark in drawing.marks] == [("the lamp", 1)] * 2
    np.testing.assert_allclose(np.sort(drawing.marks[0].corners, axis=0)[[0, -1]], [[0, 0, 1.875], [1, 0.5, 2.125]])
    assert drawing.notes[:2] == ("the cat: no such object", "the bed: no answer that can be parsed. It is no JSON.")
    assert len(drawing.notes) == 3 and "stood level" in drawing.notes[2]


def test_said_boxes_stand_upright_where_poses_are_known(scene):
    """A camera that looks 30 degrees down sees the upright edges of a box lean."""
    down = np.deg2rad(30)
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, -np.sin(down), np.cos(down)], [0, -np.cos(down), -np.sin(down)]]
    said = [SaidBoxes("the lamp", "", (CameraBox(0, (0, 0, 2), (1, 1, 1), 0.3),))]
    drawing = draw_boxes(scene, said, cameras=Cameras(None, np.stack([pose, pose])))
    heights = (drawing.marks[0].corners @ pose[:3, :3].T)[:, 2]
    assert np.unique(heights.round(6)).size == 2 and np.ptp(heights) == pytest.approx(1)
    assert drawing.notes == ()


def test_boxes_of_frames_that_were_not_shown_are_told(scene):
    far = SaidBoxes("the lamp", "", (CameraBox(7, (0, 0, 2), (1, 1, 1), 0.0),))
    with pytest.raises(ValueError, match="a box of frame 7, but 2 frames were shown"):
        draw_boxes(scene, [far])
    with pytest.raises(TypeError, match="`said` must be a list of SaidBoxes"):
        draw_boxes(scene, [found("a")])


def test_proposals_of_another_video_are_not_drawn_on_this_one(scene):
    other = SceneSession(scene.session.model, scene.session.processor, 255 - FRAMES, do_sample_frames=False).propose()
    entry = found(other.names[0], scores={other.names[0]: 0.9})
    assert other.names[0] in scene.session.propose().names  # the name alone would not tell
    with pytest.raises(ValueError, match="of another video"):
        draw_found(scene, [entry], other)
    with pytest.raises(ValueError, match="of another video"):
        draw_described(scene, {other.names[0]: "a chair"}, other)
    with pytest.raises(ValueError, match="of another video"):
        scene.describe(other)
    with pytest.raises(ValueError, match="of another video"):
        scene.find(["the chair"], other)
