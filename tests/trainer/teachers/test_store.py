"""Stored features: what a file says of itself, what a training gets from it, and what it refuses."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from processing.token_grid import TokenGrid
from trainer.teachers import FrameSource, StoreIdentity, TeacherStore
from trainer.teachers.store import HEADER, read_scene, save_scene, scene_path

GRID = TokenGrid(70, 14, 2)  # 3 x 3 tokens
NAMES = ("00000", "00010", "00030")
SCENE = "scannet/scene0000_00"


def identity(**changes):
    facts = {
        "teacher": "somebody/eyes",
        "version": "sha256:1",
        "licence": "mit",
        "preprocessing": "whole frames, 56 x 56 px",
        "protocol": "clean",
        "image_size": (70, 70),
        "patch_size": 14,
        "pool_stride": 2,
    }
    return StoreIdentity(**{**facts, **changes})


def features(frames=3, seed=0, channels=5):
    return torch.randn(frames, 3, 3, channels, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path):
    """Two scenes."""
    save_scene(tmp_path, identity(), FrameSource(SCENE, NAMES), features())
    save_scene(tmp_path, identity(), FrameSource("scannet/scene0001_00", NAMES), features(seed=1))
    return tmp_path


def source(*names, scene=SCENE):
    return FrameSource(scene, names)


class TestFile:
    def test_says_what_it_holds(self, folder):
        path = scene_path(folder, SCENE)
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        for word in ("somebody/eyes", "sha256:1", "mit", "56 x 56 px", "clean", "00030", SCENE):
            assert word in "".join(header.values())
        scene = read_scene(path)
        assert scene.identity == identity() and scene.frame_names == NAMES and scene.shape == (3, 3, 3, 5)
        assert load_file(path)["features"].dtype == torch.float16

    def test_is_replaced_as_a_whole(self, folder, monkeypatch):
        """A run that dies while it writes leaves what was there, and nothing that looks like a file of features."""
        before = scene_path(folder, SCENE).read_bytes()

        def die(file):
            os.ftruncate(file, 100)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", die)
        for scene in (SCENE, "scannet/new"):
            with pytest.raises(KeyboardInterrupt):
                save_scene(folder, identity(), source(*NAMES, scene=scene), features(seed=2))
        assert scene_path(folder, SCENE).read_bytes() == before
        assert len(list(folder.rglob("*.safetensors"))) == 2

    @pytest.mark.parametrize("keep", [0, 20, 300, -1])
    def test_that_was_cut_off_is_named(self, folder, keep):
        path = scene_path(folder, SCENE)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))} holds no whole teacher features"):
            read_scene(path)

    @pytest.mark.parametrize(
        "metadata", [None, {"format": "pt"}, {HEADER: "{}"}, {HEADER: "no"}, {HEADER: '{"format": 2}'}], ids=str
    )
    def test_of_another_kind_is_named(self, tmp_path, metadata):
        save_file({"features": features()}, tmp_path / "a.safetensors", metadata=metadata)
        with pytest.raises(ValueError, match="a.safetensors holds no whole teacher features"):
            TeacherStore(tmp_path)

    def test_holds_nothing_that_float16_does_not(self, tmp_path):
        for value, told in ((1e5, "up to 1e.05"), (float("nan"), "NaN"), (-float("inf"), "Inf")):
            broken = features()
            broken[1, 2, 0, 3] = value
            with pytest.raises(ValueError, match=f"{SCENE}: float16 holds values up to 65504.*{told}"):
                save_scene(tmp_path, identity(), source(*NAMES), broken)
        assert not list(tmp_path.rglob("*.safetensors"))

    @pytest.mark.parametrize("shape", [(2, 3, 3, 5), (3, 3, 4, 5), (3, 9, 5)])
    def test_has_the_shape_of_frames_and_grid(self, tmp_path, shape):
        with pytest.raises(ValueError, match=rf"must have shape \(3, 3, 3, 'C'\), got {re.escape(str(shape))}"):
            save_scene(tmp_path, identity(), source(*NAMES), torch.zeros(shape))


class TestReading:
    def test_is_a_teacher_with_the_name_of_the_one_that_made_it(self, folder):
        store = TeacherStore(folder)
        assert (store.name, store.version, store.licence) == ("somebody/eyes", "sha256:1", "mit")
        assert (store.preprocessing, store.protocol) == ("whole frames, 56 x 56 px", "clean")
        assert store.feature_size == 5

    @pytest.mark.parametrize(
        "order", [NAMES, ("00030", "00000"), ("00010",), ("00010", "00010", "00030", "00000")], ids=len
    )
    def test_frames_come_in_the_order_asked(self, folder, order):
        found = TeacherStore(folder).compute_features(np.zeros((len(order), 4, 4, 3)), None, GRID, source(*order))
        expected = features()[[NAMES.index(name) for name in order]].half().float()
        assert torch.equal(found, expected) and found.dtype == torch.float32

    @pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="counts pages as Linux does")
    def test_only_the_pages_of_the_frames_are_read(self, tmp_path):
        """Of 64 MB the one frame that is asked for, as the kernel counts what the process maps."""
        grid = TokenGrid(448, 14, 1)
        names = [f"{index:05d}" for index in range(64)]
        wide = identity(image_size=(448, 448), pool_stride=1)
        save_scene(tmp_path, wide, source(*names), torch.ones(64, 32, 32, 512))
        store = TeacherStore(tmp_path)
        before = resident_bytes()
        found = store.load_features(SCENE, ["00040"], grid)
        assert found.shape == (1, 32, 32, 512) and resident_bytes() - before < 16e6

    def test_goes_to_the_workers_of_a_data_loader(self, folder):
        copy = pickle.loads(pickle.dumps(TeacherStore(folder)))
        assert copy.load_features(SCENE, NAMES, GRID).shape == (3, 3, 3, 5)


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class TestRefusal:
    def test_other_grids(self, folder):
        """Also one of the same shape that covers another part of the frame."""
        store = TeacherStore(folder)
        for grid, told in ((TokenGrid(56, 14, 2), "2 x 2 tokens on 56 x 56"), (TokenGrid(72, 14, 2), "72 x 72 px")):
            with pytest.raises(ValueError, match=f"3 x 3 tokens on 70 x 70 px.*{told}"):
                store.load_features(SCENE, NAMES, grid)

    def test_frames_that_are_not_there(self, folder):
        told = "holds the frames 00000, 00010, 00030, the sample has 00000, 00020: 00020 lack features"
        with pytest.raises(ValueError, match=told):
            TeacherStore(folder).load_features(SCENE, ["00000", "00020"], GRID)
        with pytest.raises(ValueError, match="name no frame"):
            TeacherStore(folder).load_features(SCENE, [], GRID)

    def test_scenes_that_are_not_there(self, folder):
        with pytest.raises(FileNotFoundError, match="no features of the scene .*0002_00: expected .*0002_00.safe"):
            TeacherStore(folder).load_features("scannet/scene0002_00", NAMES, GRID)
        with pytest.raises(FileNotFoundError, match="make them by `python -m trainer.teachers`"):
            TeacherStore(folder / "empty")

    @pytest.mark.parametrize("change", [{"teacher": "other/eyes"}, {"version": "sha256:2"}, {"pool_stride": 1}])
    def test_a_file_of_another_teacher(self, folder, change):
        other, name = identity(**change), "scannet/scene0001_00"
        save_scene(folder, other, source(*NAMES, scene=name), torch.zeros(3, *other.grid.shape, 5))
        (key, value), mine = next(iter(change.items())), identity()
        told = f"{key} {value!r}, not {getattr(mine, key)!r}"
        with pytest.raises(ValueError, match=f"scene0001_00.safetensors has {re.escape(told)}"):
            TeacherStore(folder).load_features(name, NAMES, GRID)

    def test_a_file_in_the_place_of_another(self, folder):
        scene_path(folder, SCENE).rename(scene_path(folder, "scannet/scene0001_00"))
        with pytest.raises(ValueError, match="holds features of scannet/scene0000_00, not of scannet/scene0001_00"):
            TeacherStore(folder).load_features("scannet/scene0001_00", NAMES, GRID)

    def test_another_width(self, folder):
        save_scene(folder, identity(), source(*NAMES, scene="scannet/z"), features(channels=6))
        with pytest.raises(ValueError, match="has 6 channels, the rest of the store 5"):
            TeacherStore(folder).load_features("scannet/z", NAMES, GRID)

    def test_samples_that_do_not_say_what_they_show(self, folder):
        store = TeacherStore(folder)
        with pytest.raises(ValueError, match="needs `scene_id` and `frame_names`"):
            store.compute_features(np.zeros((3, 4, 4, 3)), None, GRID)
        with pytest.raises(ValueError, match="2 frames and 3 `frame_names`"):
            store.compute_features(np.zeros((2, 4, 4, 3)), None, GRID, source(*NAMES))
