"""Proposers of words and marks by models of Transformers: tiny random ones run from end to end."""

import numpy as np
import pytest
import torch
from tiny_segmenters import build_grounding_dino, build_sam2, build_sam3

from processing.proposals import GroundedSam2Proposer, Mark, ProposalVideo, Sam2Tracker, Sam3Proposer
from processing.proposals.word_masks import _is_tracked
from processing.token_grid import TokenGrid

GRID = TokenGrid(64, 8, 1)


@pytest.fixture(scope="module")
def video():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    return ProposalVideo(frames, rng.normal(size=(3, 8, 8, 4)).astype(np.float32), GRID)


@pytest.fixture(scope="module")
def tracker():
    return Sam2Tracker(*build_sam2())


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return build_grounding_dino(tmp_path_factory.mktemp("vocabulary"))


def check(proposals, video, source, licence):
    assert proposals.masks.dtype == torch.bool and proposals.masks.shape[1:] == (3, 8, 8)
    assert len(proposals) == len(proposals.scores) == len(set(proposals.names)) == len(proposals.masks)
    assert (proposals.source, proposals.licence) == (source, licence)
    assert proposals.masks.flatten(1).any(1).all()
    proposals.check_video(video.fingerprint)


def test_detected_words_are_tracked_and_named(video, tracker, detector):
    proposer = GroundedSam2Proposer(*detector, tracker, threshold=0.0)
    proposals = proposer.propose(video, ["the red chair", "lamp"])
    check(proposals, video, "Grounding DINO + SAM 2", "Apache-2.0 (both)")
    assert len(proposals) and all(name.startswith(("the red chair ", "lamp ")) for name in proposals.names)


def test_nothing_detected_is_no_proposal(video, tracker, detector):
    proposals = GroundedSam2Proposer(*detector, tracker, threshold=1.0).propose(video, ["lamp"])
    check(proposals, video, "Grounding DINO + SAM 2", "Apache-2.0 (both)")
    assert len(proposals) == 0


def test_sam3_finds_words_in_all_frames(video):
    proposals = Sam3Proposer(*build_sam3()).propose(video, ["chair", "lamp"])
    check(proposals, video, "SAM 3", "SAM License (Meta)")
    assert {name.split()[0] for name in proposals.names} == {"chair", "lamp"}
    assert list(proposals.scores) == sorted(proposals.scores, reverse=True)


@pytest.mark.parametrize(
    "fields",
    [{"point": (20.0, 30.0)}, {"box": (10.0, 10.0, 90.0, 60.0)}, {"mask": np.eye(128, dtype=bool)[:, ::-1].copy()}],
)
def test_a_mark_is_carried_by_sam2(video, tracker, fields):
    followed = tracker.follow(video, Mark(1, (128, 128), **fields))
    assert followed.source == "SAM 2" and followed.licence == "Apache-2.0" and len(followed) <= 1
    assert followed.masks.shape[1:] == (3, 8, 8)


def test_a_box_on_what_is_tracked_is_the_same_object():
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 5:10, 5:10] = True
    assert _is_tracked([5, 5, 10, 10], masks) and _is_tracked([4, 5, 10, 10], masks)
    assert not _is_tracked([12, 12, 18, 18], masks) and not _is_tracked([5, 5, 10, 10], masks[1:])


@pytest.mark.parametrize("words", [(), [""], ["chair", " "], "chair", [5], None])
def test_words_that_name_nothing_are_refused(video, tracker, detector, words):
    with pytest.raises((TypeError, ValueError), match="`words`"):
        GroundedSam2Proposer(*detector, tracker).propose(video, words)


def test_models_of_another_kind_are_refused(tracker, detector):
    for make in (
        lambda: Sam2Tracker(torch.nn.Linear(1, 1), tracker.processor),
        lambda: Sam2Tracker(tracker.model, "x"),
        lambda: Sam3Proposer(None, tracker.processor),
        lambda: GroundedSam2Proposer(*detector, tracker.model),
    ):
        with pytest.raises(TypeError, match="must be"):
            make()
    with pytest.raises(ValueError, match="threshold"):
        GroundedSam2Proposer(*detector, tracker, threshold=2)
