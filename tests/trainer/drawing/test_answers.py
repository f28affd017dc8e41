"""What a session found or described is drawn with its region, its score and the frames' own numbers."""

import numpy as np
import pytest
import torch
from exporting import build_model, build_processor

from processing.region_files import NamedRegions
from trainer.drawing import draw_described, draw_found
from trainer.session import FoundRegion, SceneSession, VideoScene

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
