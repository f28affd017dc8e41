"""Clusters of tokens: an object of its own features is one region in every frame, walls are none."""

import numpy as np
import pytest
import torch

from processing.proposals import ClusterProposer, ProposalVideo, RegionProposals, TokenClusters
from processing.token_grid import TokenGrid

GRID = TokenGrid(64, 8, 1)


def painted(num_frames=4, seed=0):
    """Tokens of a wall with two objects of other features, each at another place in every frame."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3]
    labels = np.zeros((num_frames, 8, 8), int)
    for frame in range(num_frames):
        labels[frame, 1:3, frame % 5 : frame % 5 + 3] = 1
        labels[frame, 5:7, 6 - frame % 5 : 8 - frame % 5] = 2
    tokens = directions[labels] + rng.normal(scale=0.03, size=(*labels.shape, 16))
    return tokens.astype(np.float32), labels


def video(tokens, seed=0):
    frames = np.random.default_rng(seed).integers(0, 256, (len(tokens), 64, 64, 3), dtype=np.uint8)
    return ProposalVideo(frames, tokens, GRID)


def test_an_object_is_one_region_in_all_frames():
    tokens, labels = painted()
    proposals = ClusterProposer().propose(video(tokens))
    masks = proposals.masks.numpy()
    for number in (1, 2):
        assert any((mask == (labels == number)).all() for mask in masks), f"object {number} is no region"
    assert masks.dtype == bool and masks.shape[1:] == labels.shape
    assert list(proposals.scores) == sorted(proposals.scores, reverse=True)
    assert proposals.source == "own tokens" and proposals.names[0] == "region 0"


def test_proposals_overlap_no_more_than_allowed():
    tokens, _ = painted()
    masks = ClusterProposer(max_regions=12, max_overlap=0.3).propose(video(tokens)).masks.flatten(1).float()
    shared = masks @ masks.T
    sizes = masks.sum(1)
    overlap = shared / (sizes[:, None] + sizes - shared)
    assert len(masks) <= 12 and (overlap - torch.eye(len(masks))).max() < 0.3


def test_nothing_is_as_large_as_a_wall():
    tokens, labels = painted()
    assert TokenClusters(tokens).members.sum((1, 2, 3)).max() <= labels.size / 4


@pytest.mark.parametrize("number", [1, 2])
def test_a_click_is_carried_to_the_frames_where_the_object_is(number):
    tokens, labels = painted()
    clusters = TokenClusters(tokens)
    cells = np.zeros((8, 8), bool)
    cells[tuple(np.argwhere(labels[2] == number)[0])] = True
    mask, score = clusters.follow(cells, 2)
    assert (mask == (labels == number)).all() and 0 <= score <= 1


def test_a_marked_mask_is_followed_by_what_fits_it():
    tokens, labels = painted()
    mask, _ = TokenClusters(tokens).follow(labels[0] == 2, 0)
    assert (mask == (labels == 2)).all()


def test_one_frame_and_one_cell_are_enough():
    tokens, labels = painted(1)
    assert any((mask[0] == (labels[0] == 1)).all() for mask in ClusterProposer().propose(video(tokens)).masks.numpy())
    assert len(TokenClusters(np.ones((1, 1, 1, 4), np.float32)).choose()) == 1


def test_an_object_in_one_frame_of_many_is_proposed():
    tokens, labels = painted(32)
    shown = (labels == 1) & (np.arange(32) == 7)[:, None, None]
    tokens[(labels == 1) & ~shown] = tokens[labels == 0][0]
    assert any((mask == shown).all() for mask in ClusterProposer().propose(video(tokens)).masks.numpy())


@pytest.mark.parametrize("tokens", [np.zeros((2, 8, 8, 4), np.float32), np.ones((2, 8, 8, 4), np.float32)])
def test_frames_that_show_nothing_give_finite_scores(tokens):
    assert np.isfinite(TokenClusters(tokens).scores).all()


def test_proposals_know_their_video():
    tokens, _ = painted()
    first, second = video(tokens, seed=0), video(tokens, seed=1)
    proposals = ClusterProposer().propose(first)
    proposals.check_video(first.fingerprint)
    with pytest.raises(ValueError, match="of another video"):
        proposals.check_video(second.fingerprint)
    assert isinstance(proposals, RegionProposals)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.tolist(), TypeError, "array of floats"),
        (lambda t: t.astype(int), TypeError, "int64"),
        (lambda t: t[0], ValueError, "shape"),
        (lambda t: t[:0], ValueError, "shape"),
        (lambda t: t * np.nan, ValueError, "NaN"),
    ],
)
def test_tokens_that_are_none_are_named(change, error, words):
    with pytest.raises(error, match=words):
        TokenClusters(change(painted()[0]))


@pytest.mark.parametrize(
    ("frames", "tokens", "error"),
    [
        (np.zeros((4, 64, 64, 3)), None, TypeError),
        (np.zeros((4, 64, 64), np.uint8), None, ValueError),
        (np.zeros((3, 64, 64, 3), np.uint8), None, ValueError),
        (np.zeros((4, 64, 64, 3), np.uint8), np.zeros((4, 8, 9, 16), np.float32), ValueError),
    ],
)
def test_a_video_whose_parts_do_not_fit_is_refused(frames, tokens, error):
    with pytest.raises(error, match="frames|tokens"):
        ProposalVideo(frames, painted()[0] if tokens is None else tokens, GRID)


@pytest.mark.parametrize("options", [{"max_regions": 0}, {"max_regions": 2.5}, {"max_overlap": 0}, {"max_overlap": 2}])
def test_settings_out_of_range_are_named(options):
    error = TypeError if options == {"max_regions": 2.5} else ValueError
    with pytest.raises(error, match=next(iter(options))):
        ClusterProposer(**options)
