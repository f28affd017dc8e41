"""Each visitor has a scene that no other sees; scenes and models are bounded."""

import numpy as np
import pytest

from ide3d import nano_model
from ide3d.app import scenes
from ide3d.app.scenes import NoSceneError, SceneShelf, shrink
from ide3d.app.settings import PageSettings

NANO = str(nano_model())


@pytest.fixture
def shelf():
    return SceneShelf(PageSettings((NANO,), device="cpu", max_users=2))


def test_visitors_see_their_own_scene_alone(shelf, room):
    mine, other = shelf.open("a", NANO, room.video, "mine"), shelf.open("b", NANO, room.frames, "other")
    assert shelf.get("a") is mine and shelf.get("b") is other
    with pytest.raises(NoSceneError, match="No video is open. Upload or record one"):
        shelf.get("c")


def test_the_scene_that_waits_longest_makes_room(shelf, room):
    first = shelf.open("a", NANO, room.frames, "first")
    shelf.open("b", NANO, room.frames, "second")
    assert shelf.get("a") is first
    shelf.open("c", NANO, room.frames, "third")
    assert len(shelf) == 2 and shelf.get("a") is first
    with pytest.raises(NoSceneError):
        shelf.get("b")


def test_a_video_that_cannot_be_read_leaves_no_scene(shelf, room, tmp_path):
    shelf.open("a", NANO, room.frames, "first")
    (tmp_path / "broken.mp4").write_bytes(room.video.read_bytes()[:500])
    with pytest.raises(ValueError, match="broken.mp4"):
        shelf.open("a", NANO, tmp_path / "broken.mp4", "broken")
    assert len(shelf) == 0


def test_closing_twice_is_no_error(shelf, room):
    shelf.open("a", NANO, room.frames, "first")
    shelf.close("a")
    shelf.close("a")
    assert len(shelf) == 0


def test_long_videos_and_unlisted_models_are_refused(room):
    shelf = SceneShelf(PageSettings((NANO,), device="cpu", max_seconds=0.5))
    with pytest.raises(ValueError, match="more than the 0.5 s that are taken"):
        shelf.open("a", NANO, room.video, "long")
    with pytest.raises(ValueError, match="This page offers the models .*, got 'other'"):
        shelf.open("a", "other", room.frames, "room")


def test_a_model_that_makes_room_takes_its_scenes_along(shelf, room, monkeypatch):
    loaded = []
    load = scenes.load_inference_model
    monkeypatch.setattr(scenes, "load_inference_model", lambda name, device: loaded.append(name) or load(NANO))
    shelf = SceneShelf(PageSettings(("one", "two", "three"), max_users=5))
    for name in ("one", "two", "one", "three"):
        shelf.open(name, name, room.frames, "room")
    assert loaded == ["one", "two", "three"]  # each once
    assert shelf.get("one") and shelf.get("three")
    with pytest.raises(NoSceneError):
        shelf.get("two")


def test_frames_are_kept_at_a_size_for_the_eyes():
    frames = np.arange(2 * 1080 * 1920 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 1080, 1920, 3)
    assert shrink(frames).shape == (2, 432, 768, 3) and shrink(frames).dtype == np.uint8
    assert shrink(frames[:, :300, :400]).shape == (2, 300, 400, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"models": ()}, "at least one model"), ({"max_users": 0}, "max_users"), ({"max_seconds": -1}, "max_seconds")],
)
def test_settings_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        PageSettings(**{"models": (NANO,), **given})
