"""Finding without given regions: what is chosen among proposals, and what a session finds, describes and follows."""

import numpy as np
import pytest
import torch

from processing.proposals import ClusterProposer, Mark, RegionProposals
from trainer.session import SceneSession
from trainer.session.finding import MIN_OBJECT_SCORE, choose_proposals, to_pictures


@pytest.fixture
def session(scene_model, processor, frames):
    return SceneSession(scene_model, processor, frames, do_sample_frames=False)


def proposals(*cells, scores=None):
    masks = torch.zeros(len(cells), 1, 4, 4, dtype=torch.bool)
    for mask, own in zip(masks, cells, strict=True):
        mask.view(-1)[list(own)] = True
    names = tuple(f"region {number}" for number in range(len(cells)))
    return RegionProposals(names, masks, scores or (0.0,) * len(cells), "test", "none", "x")


@pytest.mark.parametrize(
    ("cosines", "scores", "chosen"),
    [
        ([0.8, 0.2, 0.1, 0.0], None, [0]),
        ([0.8, 0.75, 0.1, 0.0], None, [0, 1]),
        ([0.2, 0.3, 0.1, 0.9], None, []),
        ([0.4, 0.4, 0.1, 0.3], None, []),  # above "no such object", but not by its margin
        ([0.5, 0.4, 0.1, 0.0], (0.1, 0.9, 0.1), [1]),  # the cosine alone prefers a fragment
    ],
)
def test_one_several_or_none_are_found(cosines, scores, chosen):
    found = choose_proposals("x", torch.tensor(cosines), proposals([0, 1], [5, 6], [10], scores=scores))
    assert found.names == tuple(f"region {index}" for index in chosen)


def test_two_readings_of_one_object_are_found_once():
    found = choose_proposals("x", torch.tensor([0.8, 0.79, 0.78, 0.0]), proposals([0, 1, 2], [0, 1], [9]))
    assert found.names == ("region 0", "region 2") and len(found.totals) == 3


def test_forty_objects_of_a_kind_are_all_found():
    masks = torch.eye(64, dtype=torch.bool)[:40].view(40, 1, 8, 8)
    many = RegionProposals(tuple(map(str, range(40))), masks, (0.5,) * 40, "test", "none", "x")
    found = choose_proposals("chairs", torch.tensor([0.7] * 40 + [0.0]), many)
    assert len(found) == 40 and found.masks.shape == masks.shape


def test_no_proposal_finds_nothing():
    assert len(choose_proposals("x", torch.tensor([0.1]), proposals())) == 0


def test_proposals_are_made_once_a_scene(session):
    assert session.propose() is session.propose()
    assert session.propose().masks.shape[1:] == (session.num_frames, *session.token_grid.shape)


def test_pictures_are_those_that_the_model_sees(session, processor, frames):
    pixels = processor.video_processor([frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
    expected = (pixels / 2 + 0.5) * 255
    shown = session.video.frames
    assert shown.dtype == np.uint8 and np.abs(shown - expected.permute(0, 2, 3, 1).numpy()).max() <= 0.51
    assert to_pictures(torch.tensor([-1.0, 1.0, 0.0]).view(1, 3, 1, 1), [0.5] * 3, [0.5] * 3).ravel().tolist() == [
        0,
        255,
        128,
    ]


def test_what_is_found_are_proposals_with_their_licence(session, monkeypatch):
    own = session.propose()
    cosines = torch.full((1, len(own) + 1), -1.0)
    cosines[0, 1] = 1.0
    monkeypatch.setattr(SceneSession, "ground", lambda self, texts, masks, template, names: cosines)
    found = session.find("the chair")
    assert found.names == (own.names[1],) and torch.equal(found.masks, own.masks[1:2])
    assert (found.source, found.licence) == ("own tokens", "that of the model")
    cosines[:] = -1.0
    cosines[0, -1] = 1.0
    nothing = session.find("the chair")
    assert len(nothing) == 0 and nothing.masks.shape == (0, *own.masks.shape[1:])


def test_the_same_words_give_the_same_objects(session):
    first, second = session.find("the chair"), session.find("the chair")
    assert first.names == second.names and first.scores == second.scores


def test_words_that_the_model_never_saw_are_an_answer(session):
    assert session.find("der grüne Stuhl 🪑").description == "der grüne Stuhl 🪑"


def test_all_regions_are_described_by_name(session):
    described = session.describe_all(max_regions=3, max_new_tokens=4)
    assert list(described) == list(session.propose().names[:3])
    assert described["region 1"] == session.describe(session.propose().masks[1:2], max_new_tokens=4)[0]


def test_a_click_is_followed_through_the_frames(session):
    mark = Mark(1, (80, 60), point=(30, 40))
    followed = session.follow(mark)
    cells = mark.to_cells(session.token_grid, session.num_frames)
    assert followed.mask.shape == (session.num_frames, *session.token_grid.shape)
    assert followed.mask[1][torch.from_numpy(cells)].all() and 1 in followed.frames
    assert followed.is_object == (followed.score >= MIN_OBJECT_SCORE)


def test_a_drawn_mask_is_kept_in_its_frame(session):
    mask = np.zeros((80, 60), bool)
    mask[:40, :20] = True
    followed = session.follow(Mark(0, mask=mask))
    assert np.array_equal(followed.mask[0].numpy(), Mark(0, mask=mask).to_cells(session.token_grid, 1))


def test_a_video_of_one_frame_is_searched(scene_model, processor, frames):
    session = SceneSession(scene_model, processor, frames[:1], do_sample_frames=False)
    session.find("the chair")
    assert session.follow(Mark(0, (80, 60), point=(1, 1))).frames == (0,)


def test_proposals_of_another_video_are_refused(session, scene_model, processor, frames):
    other = SceneSession(scene_model, processor, 255 - frames, do_sample_frames=False).propose()
    for use in (lambda: session.find("the chair", other), lambda: session.describe_all(other)):
        with pytest.raises(ValueError, match="of another video"):
            use()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.find(""), ValueError, "empty"),
        (lambda s: s.find("  "), ValueError, "empty"),
        (lambda s: s.find(["the chair"]), TypeError, "must be a text"),
        (lambda s: s.find("the <ground>"), ValueError, "found, not pointed at"),
        (lambda s: s.find("the chair", s.propose().masks), TypeError, "RegionProposals"),
        (lambda s: s.describe_all(max_regions=0), ValueError, "max_regions"),
        (lambda s: s.follow((10, 10)), TypeError, "Mark"),
        (lambda s: s.follow(Mark(9, (80, 60), point=(1, 1))), ValueError, "one of the"),
        (lambda s: s.propose(ClusterProposer), TypeError, "RegionProposer"),
        (lambda s: s.propose("own"), TypeError, "RegionProposer"),
    ],
)
def test_what_cannot_be_meant_is_named(session, call, error, words):
    with pytest.raises(error, match=words):
        call(session)
