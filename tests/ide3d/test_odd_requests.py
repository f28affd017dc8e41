"""What a person may well ask of a video without meaning harm: each gets a clear answer or a clear error."""

import json

import numpy as np
import pytest
import torch
from commanding import run_command
from exporting import write_frames

from ide3d import nano_model
from processing.proposals import Mark
from trainer.session import SceneSession, open_video

SIZE = (256, 256)
RED = (200, 30, 30)


@pytest.fixture(scope="module")
def bare():
    """A wall and a floor."""
    picture = np.full((*SIZE, 3), 170, np.uint8)
    picture[170:] = (120, 90, 60)
    return picture


@pytest.fixture(scope="module")
def forty(bare, tmp_path_factory):
    """Four frames that show forty red boxes."""
    picture = bare.copy()
    for row in range(5):
        for col in range(8):
            picture[row * 50 + 8 : row * 50 + 38, col * 32 + 4 : col * 32 + 28] = RED
    return write_frames(tmp_path_factory.mktemp("forty") / "forty.mp4", np.stack([picture] * 4))


@pytest.fixture(scope="module")
def once(bare, tmp_path_factory):
    """Thirty-two frames, one of which shows a red box."""
    frames = np.stack([bare] * 32)
    frames[17, 64:160, 64:160] = RED
    video = write_frames(tmp_path_factory.mktemp("once") / "once.mp4", frames)
    return open_video(nano_model(), video, num_frames=32, device="cpu")


def test_where_nothing_is_proposed_that_fits_it_says_so(forty, monkeypatch):
    def ground(self, descriptions, regions, **kwargs):
        scores = torch.full((len(descriptions), len(regions) + 1), -0.9)
        scores[:, -1] = 0.5
        return scores

    monkeypatch.setattr(SceneSession, "ground", ground)
    assert run_command("find", forty, "the tower").stdout == "the tower: no such object, score 0.650\n"
    (row,) = json.loads(run_command("find", forty, "the tower", "--json").stdout)
    assert row["name"] is None and row["frames"] == [] and row["others"] == []


def test_forty_things_of_a_kind_are_answered_and_drawn(forty, tmp_path):
    page = tmp_path / "page.html"
    told = run_command("find", forty, "all red boxes", "--save", page).stdout
    assert told.startswith("all red boxes: region ") and told.count("\n") == 1
    (row,) = json.loads(run_command("find", forty, "all red boxes", "--json").stdout)
    content = page.read_text(encoding="utf-8")
    assert all(f"all red boxes ({name})" in content for name in (row["name"], *row["others"]))


def test_an_object_in_one_frame_of_thirty_two_is_proposed_and_followed_there(once):
    true = torch.zeros(32, 8, 8, dtype=torch.bool)
    true[17, 2:5, 2:5] = True
    masks = once.session.propose().masks
    overlap = (masks & true).flatten(1).sum(1) / (masks | true).flatten(1).sum(1)
    assert overlap.max() > 0.9
    followed = once.session.follow(Mark(17, SIZE, point=(110, 110)))
    assert followed.is_object and followed.frames == (17,)


@pytest.mark.parametrize("point", [(100, 40), (16, 250)])
def test_a_click_on_a_wall_or_the_floor_is_told(once, point):
    assert not once.session.follow(Mark(0, SIZE, point=point)).is_object


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"point": (300, 10)}, "lies outside of the frame, 256 px wide and 256 px high"),
        ({"point": (3, -10)}, "lies outside of the frame"),
        ({"point": (3, 10), "frame": 32}, "one of the 32 frames shown, got 32"),
    ],
)
def test_a_click_outside_is_refused(once, fields, told):
    with pytest.raises(ValueError, match=told):
        once.session.follow(Mark(**{"frame": 0, "frame_size": SIZE, **fields}))


def test_proposals_of_another_video_are_refused(once, forty):
    other = open_video(nano_model(), forty, device="cpu")
    for scene, proposals in ((once, other.session.propose()), (other, once.session.propose())):
        with pytest.raises(ValueError, match="of another video"):
            scene.find(["the red box"], proposals)


@pytest.mark.parametrize("words", ["xyzzy łóżko 🪑", "?", "the " + "very " * 50 + "red chair"])
def test_words_that_the_model_never_saw_are_answered_in_one_line(forty, words):
    told = run_command("find", forty, words).stdout
    assert told.startswith(f"{words}: ") and ", score " in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("",), 2, "Got an empty word for VIDEO or DESCRIPTION"),
        (("the chair", "   "), 1, "Entry 1 of `descriptions` is empty"),
        (("the <ground>",), 1, "candidates are found, not pointed at"),
        (("the <video>",), 1, "exactly one <video>"),
    ],
)
def test_words_that_name_nothing_are_refused_in_one_line(forty, words, code, told):
    stderr = run_command("find", forty, *words, code=code).stderr
    assert told in stderr and stderr.startswith("ide3d find: ") and stderr.count("\n") == 1


def test_one_frame_is_a_video(bare, tmp_path):
    single = write_frames(tmp_path / "single.mp4", bare[None])
    assert run_command("find", single, "the wall").stdout.startswith("the wall: ")
    stderr = run_command("find", single, "the wall", "--num-frames", 4, code=1).stderr
    assert "the video has 1 frame(s). Ask for at most 1" in stderr and stderr.count("\n") == 1
