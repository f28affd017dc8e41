"""Pseudo geometry in a store: written, read by a training, refused where it is broken, and examined."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_samples import build_collator, make_sample

from processing.token_grid import TokenGrid
from trainer.teachers import FrameSource, PseudoGeometry, StoreIdentity, TeacherStore, examine_store
from trainer.teachers.store import HEADER, read_scene, save_scene, scene_path

GRID = TokenGrid(70, 14, 2)  # 3 x 3 tokens
NAMES, SCENE = ("00000", "00010", "00030"), "scannet/scene0000_00"
NO_GRID = {"image_size": None, "patch_size": None, "pool_stride": None}


def identity(**changes):
    facts = {
        "teacher": "somebody/depth",
        "version": "1",
        "licence": "mit",
        "preprocessing": "none",
        "protocol": None,
        "image_size": (70, 70),
        "patch_size": 14,
        "pool_stride": 2,
        "alignment": "scale",
    }
    return StoreIdentity(**{**facts, **changes})


def geometry(factor=1.0, **changes):
    """That of the analytic room, 3 frames of 48 x 64 px, at another scale."""
    sample = make_sample(3)
    poses = sample["camera_to_world"].copy()
    poses[:, :3, 3] *= factor
    parts = {
        "depth": sample["depth"] * factor,
        "confidence": np.random.default_rng(0).uniform(1, 9, sample["depth"].shape),
        "intrinsics": sample["intrinsics"],
        "camera_to_world": poses,
    }
    return PseudoGeometry(**{**parts, **changes})


def features():
    return torch.randn(3, 3, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """A store with features and geometry of one scene."""
    save_scene(tmp_path, identity(), FrameSource(SCENE, NAMES), features(), geometry(7.0))
    return tmp_path


@pytest.fixture
def geometry_alone(tmp_path):
    save_scene(tmp_path, identity(**NO_GRID), FrameSource(SCENE, NAMES), geometry=geometry(7.0))
    return tmp_path


class TestFile:
    def test_holds_features_and_geometry(self, folder):
        scene = read_scene(scene_path(folder, SCENE))
        assert scene.identity == identity() and scene.shape == (3, 3, 3, 5)
        assert set(scene.geometry) == {"depth", "depth_confidence", "intrinsics", "camera_to_world"}
        store = TeacherStore(folder)
        assert torch.equal(store.load_features(SCENE, NAMES, GRID), features().half().float())

    @pytest.mark.parametrize("order", [NAMES, ("00030", "00000"), ("00010",)], ids=len)
    def test_gives_frames_in_the_order_asked(self, folder, order):
        """Unknown scale is stored as a median depth of 2; depth as float16, so to 0.1 %."""
        found, places = TeacherStore(folder).load_geometry(SCENE, order), [NAMES.index(name) for name in order]
        truth = geometry()
        factor = 2 / np.median(truth.depth)
        np.testing.assert_allclose(found.depth, truth.depth[places] * factor, rtol=1e-3)
        np.testing.assert_allclose(found.confidence, truth.confidence[places], rtol=1e-3)
        np.testing.assert_array_equal(found.intrinsics, truth.intrinsics[places])
        moved = found.camera_to_world[:, :3, 3]
        np.testing.assert_allclose(moved, truth.camera_to_world[places, :3, 3] * factor, rtol=1e-5, atol=1e-6)

    def test_of_metric_depth_is_as_it_was(self, tmp_path):
        save_scene(tmp_path, identity(alignment="metric"), FrameSource(SCENE, NAMES), features(), geometry())
        found = TeacherStore(tmp_path).load_geometry(SCENE, NAMES)
        np.testing.assert_allclose(found.depth, geometry().depth, rtol=1e-3)
        np.testing.assert_array_equal(found.camera_to_world, geometry().camera_to_world)

    def test_without_geometry_is_the_file_of_before(self, tmp_path):
        """Old stores are read, and programs that know these alone read new ones."""
        path = save_scene(tmp_path, identity(alignment=None), FrameSource(SCENE, NAMES), features())
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(json.loads(file.read(size))["__metadata__"][HEADER])
        assert header["format"] == 1 and "alignment" not in header["identity"]
        store = TeacherStore(tmp_path)
        assert store.alignment is None and store.load_features(SCENE, NAMES, GRID).shape == (3, 3, 3, 5)
        with pytest.raises(ValueError, match="holds features alone, no geometry: make it by `ide3d geometry`"):
            store.load_geometry(SCENE, NAMES)

    def test_without_features_serves_any_grid(self, geometry_alone):
        store = TeacherStore(geometry_alone)
        assert store.feature_size is None and store.load_geometry(SCENE, NAMES).depth.shape == (3, 48, 64)
        with pytest.raises(ValueError, match="holds geometry alone, no features: give it as `pseudo_geometry`"):
            store.load_features(SCENE, NAMES, GRID)

    def test_of_surer_than_float16_is_as_sure(self, tmp_path):
        sure = np.full((3, 48, 64), 1e9)
        save_scene(tmp_path, identity(**NO_GRID), FrameSource(SCENE, NAMES), geometry=geometry(confidence=sure))
        assert (TeacherStore(tmp_path).load_geometry(SCENE, NAMES).confidence == 65504).all()


class TestRefusal:
    @pytest.mark.parametrize(
        "change, told",
        [
            ({"depth": np.ones((3, 48))}, r"`depth` must have shape \(V, h, w\)"),
            ({"confidence": np.ones((3, 4, 4))}, "`depth_confidence` must have the shape"),
            ({"intrinsics": np.eye(3)}, r"`intrinsics` must have shape \(3, 3, 3\)"),
            ({"intrinsics": None}, "`camera_to_world` needs `intrinsics`"),
        ],
    )
    def test_of_parts_that_do_not_fit(self, change, told):
        with pytest.raises(ValueError, match=told):
            geometry(**change)

    @pytest.mark.parametrize(
        "change, told",
        [
            ({"depth": np.full((3, 48, 64), np.nan)}, "`depth` holds 9216 values that are NaN"),
            ({"depth": -make_sample(3)["depth"]}, "negative values"),
            ({"camera_to_world": np.full((3, 4, 4), 2.0)}, "not a rigid motion"),
            ({"intrinsics": np.zeros((3, 3, 3))}, "`intrinsics` of frames"),
        ],
    )
    def test_of_broken_geometry(self, tmp_path, change, told):
        with pytest.raises(ValueError, match=f"{SCENE}: .*{told}"):
            save_scene(tmp_path, identity(**NO_GRID), FrameSource(SCENE, NAMES), geometry=geometry(**change))
        assert not list(tmp_path.rglob("*.safetensors"))

    def test_of_other_frames_and_none(self, tmp_path):
        facts = identity(**NO_GRID)
        with pytest.raises(ValueError, match="Got 2 frames but 3 depth maps"):
            save_scene(tmp_path, facts, FrameSource(SCENE, NAMES[:2]), geometry=geometry())
        with pytest.raises(TypeError, match="`geometry` must be a PseudoGeometry, got None"):
            save_scene(tmp_path, facts, FrameSource(SCENE, NAMES))

    def test_of_poses_beside_depth_of_unknown_shift(self, tmp_path):
        with pytest.raises(ValueError, match="leaves the shift of each frame open"):
            facts = identity(**NO_GRID, alignment="affine")
            save_scene(tmp_path, facts, FrameSource(SCENE, NAMES), geometry=geometry())

    def test_of_another_alignment(self, folder):
        other = FrameSource("scannet/z", NAMES)
        save_scene(folder, identity(alignment="metric"), other, features(), geometry())
        with pytest.raises(ValueError, match="z.safetensors has alignment 'metric', not 'scale'"):
            TeacherStore(folder).load_geometry("scannet/z", NAMES)

    @pytest.mark.parametrize(
        "change, told",
        [
            (lambda t: t.update(depth=t["depth"][:2].clone()), r"depth \(2, 48, 64\)"),
            (lambda t: t.update(depth=t["depth"].to(torch.float64)), "of type F64"),
            (lambda t: t.update(depth_confidence=t["depth"][:, :4].clone()), r"depth_confidence \(3, 4, 64\)"),
            (lambda t: t.update(camera_to_world=torch.zeros(3, 3, 4)), r"camera_to_world \(3, 3, 4\)"),
            (lambda t: t.pop("intrinsics"), "camera_to_world without intrinsics"),
            (lambda t: t.pop("depth"), "depth_confidence"),
            (lambda t: [t.pop(key) for key in list(t) if key != "features"], "other than its header says"),
        ],
        ids=["frames", "type", "confidence", "poses", "cameras", "depth", "all"],
    )
    def test_of_files_that_hold_something_else(self, folder, change, told):
        path = scene_path(folder, SCENE)
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(size))["__metadata__"]
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} holds no whole .*{told}"):
            TeacherStore(folder)

    def test_of_numbers_that_are_broken(self, geometry_alone):
        path = scene_path(geometry_alone, SCENE)
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(size))["__metadata__"]
        tensors = load_file(path)
        tensors["depth"][1, 0, 0] = -1
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"negative numbers in `depth` of the frames \['00010'\]"):
            TeacherStore(geometry_alone).load_geometry(SCENE, NAMES)
        assert TeacherStore(geometry_alone).load_geometry(SCENE, ["00000"]).depth.shape == (1, 48, 64)


class TestTraining:
    def sample(self, **fields):
        bare = make_sample(3, geometry=False)
        return {**bare, "scene_id": SCENE, "frame_names": list(NAMES), **fields}

    def test_reads_the_frames_of_a_sample(self, geometry_alone):
        """It is what the same geometry in the sample gives, up to float16."""
        collator = build_collator(pseudo_geometry=TeacherStore(geometry_alone))
        found = collator([self.sample()])
        given = geometry()
        keys = {"depth_confidence": given.confidence, "geometry_kind": "pseudo"}
        own = {key: getattr(given, key) for key in ("depth", "intrinsics", "camera_to_world")}
        expected = build_collator()([self.sample(**keys, **own)])
        assert found["depth_alignment"].tolist() == expected["depth_alignment"].tolist() == [1]
        both = (found["depth"] > 0) & (expected["depth"] > 0)
        assert both.float().mean() > 0.85 and ((found["depth"] > 0) == (expected["depth"] > 0)).float().mean() > 0.99
        torch.testing.assert_close(found["depth"][both], expected["depth"][both], rtol=2e-3, atol=1e-3)
        for key in ("intrinsics", "camera_to_world"):
            torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-3)

    def test_takes_frames_of_another_size(self, geometry_alone):
        small = self.sample()
        small["frames"] = small["frames"][:, ::2, ::2]
        collator = build_collator(pseudo_geometry=TeacherStore(geometry_alone))
        torch.testing.assert_close(collator([small])["intrinsics"], collator([self.sample()])["intrinsics"])

    def test_leaves_measured_geometry_and_other_samples_alone(self, geometry_alone, caplog):
        collator = build_collator(pseudo_geometry=TeacherStore(geometry_alone))
        measured = {**make_sample(3), "scene_id": SCENE, "frame_names": list(NAMES)}
        batch = collator(
            [measured, self.sample(), self.sample(scene_id="scannet/other"), make_sample(2, geometry=False)]
        )
        assert batch["has_geometry"].tolist() == [True, True, False, False]
        assert batch["depth_alignment"].tolist() == [0, 1, 0, 0]
        assert "holds no geometry of the scene scannet/other, so it trains without" in caplog.text

    def test_asks_for_a_store_with_geometry(self, tmp_path):
        save_scene(tmp_path, identity(alignment=None), FrameSource(SCENE, NAMES), features())
        with pytest.raises(ValueError, match="pseudo_geometry: .* holds features alone"):
            build_collator(pseudo_geometry=TeacherStore(tmp_path))
        with pytest.raises(TypeError, match="pseudo_geometry must be a TeacherStore or None"):
            build_collator(pseudo_geometry="outputs/geometry")

    def test_names_a_frame_that_is_not_stored(self, geometry_alone):
        collator = build_collator(pseudo_geometry=TeacherStore(geometry_alone))
        with pytest.raises(ValueError, match="00040 lack geometry. Extract the frames that you train with"):
            collator([self.sample(frame_names=["00000", "00010", "00040"])])


class TestExamination:
    def test_says_what_a_store_holds(self, folder):
        diagnosis = examine_store(folder)
        (scene,) = diagnosis.scenes
        assert diagnosis.can_run() and (scene.frames, scene.with_depth, scene.problem) == (3, 1.0, "")
        assert scene.contradicted < 0.01 and 1 < scene.confidence[0] < scene.confidence[1] < scene.confidence[2] < 9
        for words in ("1 scenes, 3 frames", "of somebody/depth (1), licence mit", "70 x 70 px", "alignment scale"):
            assert words in diagnosis.as_text()
        assert json.loads(json.dumps(diagnosis.as_dict()))["scenes"][0]["scene_id"] == SCENE

    def test_names_what_cannot_be_used(self, folder):
        save_scene(folder, identity(version="2"), FrameSource("scannet/z", NAMES), features(), geometry())
        scene_path(folder, "scannet/cut").write_bytes(scene_path(folder, SCENE).read_bytes()[:-9])
        diagnosis = examine_store(folder)
        assert not diagnosis.can_run() and len(diagnosis.scenes) == 3
        assert "version '2', not '1'" in diagnosis.as_text() and "cut.safetensors" in diagnosis.as_text()

    def test_names_what_to_look_at(self, tmp_path):
        facts, truth = identity(**NO_GRID, alignment="metric"), geometry().depth
        empty, floating = truth.copy(), truth.copy()
        empty[1] = 0
        floating[1, 8:40, 8:56] *= 0.6
        for scene, depth in (("a", truth), ("empty", empty), ("floating", floating)):
            save_scene(tmp_path, facts, FrameSource(scene, NAMES), geometry=geometry(depth=depth))
        notes = {scene.scene_id: scene.note for scene in examine_store(tmp_path).scenes}
        assert notes["a"] == "" and notes["empty"] == "1 frames such as 00010 have no depth"
        assert "views contradict each other at" in notes["floating"]

    def test_of_a_folder_without_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no store"):
            examine_store(tmp_path)
