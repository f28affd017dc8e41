"""Sources of pseudo geometry on exported rooms: depth networks, reconstructions, and arrays of the user."""

import logging
import re
import sys

import numpy as np
import pytest
import torch
from training_samples import build_collator, chat
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    GLPNConfig,
    GLPNForDepthEstimation,
    GLPNImageProcessor,
)

from processing.benchmarks import load_scene
from trainer.geometry import project_points, unproject_depth
from trainer.teachers import (
    ArraySource,
    ColmapSource,
    DepthEstimationSource,
    FrameSource,
    TeacherStore,
    examine_store,
    extract_geometry,
    load_geometry_source,
)

SCENE = "scannet/room0000_00"
SCENES = [SCENE, "scannet/room0001_00", "scannet/room0002_00"]
NAMES = ("00000", "00010", "00020", "00030")
SOURCE = FrameSource(SCENE, NAMES)
FACTS = {"name": "somebody/depth", "version": "1", "licence": "mit", "alignment": "scale"}


@pytest.fixture(scope="module")
def room(scenes):
    return load_scene(scenes, SCENE, frame_names=NAMES, parts=("depth", "poses"))


def turned(poses, factor):
    """The same cameras in another world frame, of another scale."""
    angle = np.deg2rad(40)
    world = np.eye(4)
    world[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    world[:3, 3] = [3, -2, 1]
    moved = world @ np.asarray(poses, np.float64)
    moved[:, :3, 3] *= factor
    return moved


def relative(poses):
    return np.linalg.inv(poses[0]) @ poses


class TestDepthNetworks:
    def save(self, folder, kind):
        torch.manual_seed(0)
        size = {"height": 56, "width": 56}
        if kind == "glpn":
            config = GLPNConfig(
                hidden_sizes=[4, 8, 8, 8],
                depths=[1] * 4,
                num_attention_heads=[1] * 4,
                decoder_hidden_size=8,
                max_depth=10,
            )
            model, processor = GLPNForDepthEstimation(config), GLPNImageProcessor()
        elif kind == "dpt":
            config = DPTConfig(
                hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=56,
                patch_size=14, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8,
                is_hybrid=False,
            )  # fmt: skip
            model, processor = DPTForDepthEstimation(config), DPTImageProcessor(size=size)
        else:
            backbone = Dinov2Config(
                hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
                out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
            )  # fmt: skip
            config = DepthAnythingConfig(
                backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, reassemble_factors=[4, 2, 1, 0.5],
                neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind,
                **({"max_depth": 10} if kind == "metric" else {}),
            )  # fmt: skip
            model, processor = DepthAnythingForDepthEstimation(config), DPTImageProcessor(size=size)
        last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
        torch.nn.init.ones_(last.bias)  # depth above 0 everywhere
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
        return folder

    @pytest.mark.parametrize(
        "kind, alignment", [("relative", "inverse"), ("metric", "metric"), ("dpt", "inverse"), ("glpn", "metric")]
    )
    def test_from_a_folder_to_a_batch(self, tmp_path, scenes, room, kind, alignment):
        """A random network measures nothing, but its numbers go all the way, in the frames' order and shape."""
        source = load_geometry_source(str(self.save(tmp_path / "model", kind)))
        assert source.alignment == alignment and source.licence == "apache-2.0"
        found = source.compute_geometry(room.frames, SOURCE)
        assert found.depth.shape == (4, 48, 48) and found.camera_to_world is None
        again = source.compute_geometry(room.frames[[2]], FrameSource(SCENE, NAMES[2:3]))
        np.testing.assert_allclose(again.depth[0], found.depth[2], rtol=1e-4, atol=1e-6)
        assert (found.depth > 0).all()
        report = extract_geometry(source, scenes, tmp_path / "store", SCENES, num_frames=4)
        assert (report.scenes, report.computed) == (3, 3)
        store = TeacherStore(tmp_path / "store")
        assert store.alignment == alignment and store.version.startswith("sha256:")
        collator = build_collator(pseudo_geometry=store)
        sample = {"messages": chat(), "frames": room.frames, "scene_id": SCENE, "frame_names": list(NAMES)}
        batch = collator([sample])
        assert batch["depth"].shape == (1, 4, 72, 72) and not {"intrinsics", "camera_to_world"} & batch.keys()

    def test_longer_side_is_bounded(self, tmp_path):
        source = DepthEstimationSource(self.save(tmp_path, "metric"), longer_side=40)
        assert source.compute_geometry(np.zeros((1, 60, 80, 3), np.uint8)).depth.shape == (1, 30, 40)

    def test_says_what_it_does_not_know(self, tmp_path):
        folder = self.save(tmp_path, "dpt")
        config = (folder / "config.json").read_text()
        assert DepthEstimationSource(folder, alignment="affine").alignment == "affine"
        with pytest.raises(ValueError, match="alignment must be one of"):
            DepthEstimationSource(folder, alignment="log")
        (folder / "README.md").unlink()
        with pytest.raises(ValueError, match="No model card states the licence"):
            DepthEstimationSource(folder)
        assert DepthEstimationSource(folder, licence="mit").licence == "mit"
        (folder / "config.json").write_text(config.replace("DPTFor", "SomethingFor").replace('"dpt"', '"dino"'))
        with pytest.raises(OSError, match="is no folder or Hub name of a depth network"):
            DepthEstimationSource(folder, licence="mit")


class TestArrays:
    def write(self, folder, room, factor=5.0, **changes):
        arrays = {
            "depth": room.depth * factor,
            "frame_names": np.array(NAMES),
            "depth_confidence": np.ones(room.depth.shape),
            "intrinsics": room.intrinsics,
            "camera_to_world": turned(room.camera_to_world, factor),
            **changes,
        }
        path = folder / f"{SCENE}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return ArraySource(folder, **FACTS)

    def test_frames_are_found_by_name(self, tmp_path, room):
        order = [3, 1, 0, 2]
        changes = {"frame_names": np.array(NAMES)[order], "depth": room.depth[order], "depth_confidence": None}
        source = self.write(tmp_path, room, intrinsics=None, camera_to_world=None, **changes)
        np.testing.assert_array_equal(source.compute_geometry(None, SOURCE).depth, room.depth)

    def test_geometry_of_another_world_and_scale_trains_like_that_of_the_room(self, tmp_path, scenes, room):
        source = self.write(tmp_path / "arrays", room)
        extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=4)
        (state,) = examine_store(tmp_path / "store").scenes
        assert state.contradicted < 0.01 and state.problem == state.note == ""
        collator = build_collator(pseudo_geometry=TeacherStore(tmp_path / "store"))
        sample = {"messages": chat(), "frames": room.frames, "scene_id": SCENE, "frame_names": list(NAMES)}
        found = collator([sample])
        truth = build_collator()(
            [{**sample, "depth": room.depth, "intrinsics": room.intrinsics, "camera_to_world": room.camera_to_world}]
        )
        both = (found["depth"] > 0) & (truth["depth"] > 0)
        ratio = found["depth"][both] / truth["depth"][both]
        assert both.float().mean() > 0.98 and ratio.std() / ratio.mean() < 2e-3
        moved, true = relative(found["camera_to_world"][0].numpy()), relative(truth["camera_to_world"][0].numpy())
        np.testing.assert_allclose(moved[:, :3, 3], true[:, :3, 3] * ratio.mean().item(), atol=1e-3)
        np.testing.assert_allclose(moved[:, :3, :3], true[:, :3, :3], atol=1e-5)

    def test_the_same_command_goes_on(self, tmp_path, scenes, room):
        source = self.write(tmp_path / "arrays", room)
        extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=4)
        assert extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=4).computed == 0
        other = ArraySource(tmp_path / "arrays", **{**FACTS, "version": "2"})
        with pytest.raises(ValueError, match="has version '1', not '2'"):
            extract_geometry(other, scenes, tmp_path / "store", [SCENE], num_frames=4)
        with pytest.raises(ValueError, match="has the frames"):
            extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=2)

    def test_views_that_contradict_are_told(self, tmp_path, scenes, room, caplog):
        depth = room.depth.copy()
        depth[1:3, 8:40, 8:40] *= 0.6
        source = self.write(tmp_path / "arrays", room, depth=depth * 5)
        with caplog.at_level(logging.WARNING, "trainer.teachers"):
            extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=4)
        assert f"{SCENE}: views contradict each other at" in caplog.text

    def test_poses_of_another_convention_are_refused(self, tmp_path, scenes, room):
        poses = np.linalg.inv(turned(room.camera_to_world, 5.0))
        source = self.write(tmp_path / "arrays", room, camera_to_world=poses)
        with pytest.raises(ValueError, match=f"{SCENE}: .*world to camera"):
            extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=4)

    @pytest.mark.parametrize(
        "changes, told",
        [
            ({"depth": None}, r"lacks \['depth'\]"),
            ({"frame_names": None}, r"lacks \['frame_names'\]"),
            ({"frame_names": np.arange(4)}, "`frame_names` must be texts"),
            ({"frame_names": np.array(NAMES[:3])}, r"lacks the frames \['00030'\]"),
            ({"depth": np.ones((3, 48, 48))}, r"`depth` must have shape \(4, h, w\), got \(3, 48, 48\)"),
            ({"intrinsics": np.ones((2, 3, 3))}, "`intrinsics` has 2 entries for 4 `frame_names`"),
            ({"intrinsics": None}, "`camera_to_world` needs `intrinsics`"),
            ({"depth_confidence": np.ones((4, 9, 9))}, "`depth_confidence` must have the shape"),
            ({"depth": np.array([{"a": 1}] * 4, object)}, "cannot be read as arrays"),
        ],
    )
    def test_arrays_that_do_not_fit_are_named(self, tmp_path, room, changes, told):
        source = self.write(tmp_path, room, **changes)
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*{told}"):
            source.compute_geometry(None, SOURCE)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"\0" * 40, b"\x93NUMPY"])
    def test_files_of_another_kind_are_named(self, tmp_path, room, content):
        source = self.write(tmp_path, room)
        (tmp_path / f"{SCENE}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=f"{SCENE}.npz cannot be read as arrays"):
            source.compute_geometry(None, SOURCE)
        with pytest.raises(FileNotFoundError, match="no arrays of the scene scannet/nobody"):
            source.compute_geometry(None, FrameSource("scannet/nobody", NAMES))

    def test_options(self, tmp_path):
        with pytest.raises(ValueError, match="The kind arrays needs .*alignment"):
            load_geometry_source("arrays", folder=tmp_path)
        with pytest.raises(ValueError, match="colmap needs .*folder"):
            load_geometry_source("colmap")
        with pytest.raises(FileNotFoundError, match="There is no folder of arrays"):
            load_geometry_source("arrays", folder=tmp_path / "a", **FACTS)
        with pytest.raises(ValueError, match="arrays, colmap, or a depth network"):
            load_geometry_source("somebody")


class TestReconstructions:
    FACTOR = 5.0

    @pytest.fixture(autouse=True)
    def pycolmap(self):
        self.pycolmap = pytest.importorskip("pycolmap")

    def write(self, folder, room, names=NAMES, params=(), model="PINHOLE", dense=False):
        """A reconstruction of a room as COLMAP writes it: every third pixel of the first frame is a point."""
        pycolmap, poses = self.pycolmap, turned(room.camera_to_world, self.FACTOR)
        size, matrix = room.frames.shape[1:3], room.intrinsics[0].astype(float)
        lens = [matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5, *params]
        written = pycolmap.Reconstruction()
        camera = pycolmap.Camera(model=model, width=size[1], height=size[0], params=lens, camera_id=1)
        written.add_camera_with_trivial_rig(camera)
        depth, cameras = torch.tensor(room.depth) * self.FACTOR, torch.tensor(room.intrinsics)
        points = unproject_depth(depth[:1], cameras[:1], torch.tensor(poses[:1]).float())[0, ::3, ::3].reshape(-1, 3)
        seen = []
        for index in range(len(names)):
            pose = torch.tensor(poses[index]).float()
            pixels, z = project_points(points, cameras[index], pose)
            pixels = pixels.nan_to_num(-1)
            column, row = (pixels + 0.5).floor().long().unbind(-1)
            is_in = (column >= 0) & (row >= 0) & (column < size[1]) & (row < size[0])
            there = depth[index][row.clamp(0, size[0] - 1), column.clamp(0, size[1] - 1)]
            seen.append((pixels, is_in & ((z - there).abs() < 0.05 * z)))
        kept = (torch.stack([mask for _, mask in seen]).sum(0) >= 2).nonzero().flatten().tolist()
        tracks = {point: pycolmap.Track() for point in kept}
        for index, (name, (pixels, mask)) in enumerate(zip(names, seen, strict=True)):
            own = [point for point in kept if mask[point]]
            keypoints = np.array([pixels[point].numpy() + 0.5 for point in own], np.float64).reshape(-1, 2)
            image = pycolmap.Image(name=f"{name}.jpg", keypoints=keypoints, camera_id=1, image_id=index + 1)
            motion = pycolmap.Rigid3d(np.linalg.inv(poses[index])[:3])
            written.add_image_with_trivial_frame(image, motion)
            for place, point in enumerate(own):
                tracks[point].add_element(index + 1, place)
        for point, track in tracks.items():
            written.add_point3D(points[point].double().numpy(), track, np.zeros(3, np.uint8))
        target = folder / SCENE / "sparse" / "0"
        target.mkdir(parents=True)
        written.write(str(target))
        if dense:
            maps = folder / SCENE / "stereo" / "depth_maps"
            maps.mkdir(parents=True)
            for name, each in zip(names, depth.numpy(), strict=True):
                pycolmap.DepthMap.from_array(each, 0.0, 100.0).write(str(maps / f"{name}.jpg.geometric.bin"))
        return ColmapSource(folder)

    def test_points_lie_where_the_room_is(self, tmp_path, room):
        found = self.write(tmp_path, room).compute_geometry(room.frames, SOURCE)
        np.testing.assert_allclose(found.camera_to_world, turned(room.camera_to_world, self.FACTOR), atol=1e-4)
        np.testing.assert_allclose(found.intrinsics, room.intrinsics, atol=1e-4)
        has_depth = found.depth > 0
        assert found.depth.shape == (4, 48, 48) and (has_depth.mean((1, 2)) > 0.03).all()
        ratio = found.depth[has_depth] / room.depth[has_depth] / self.FACTOR
        assert np.abs(ratio - 1).max() < 0.06 and np.abs(ratio - 1)[: len(ratio) // 4].mean() < 0.02
        assert (found.confidence[has_depth] == 1).all() and not found.confidence[~has_depth].any()

    def test_dense_maps_are_preferred(self, tmp_path, room):
        found = self.write(tmp_path, room, dense=True).compute_geometry(room.frames, SOURCE)
        np.testing.assert_allclose(found.depth, room.depth * self.FACTOR, rtol=1e-6)
        assert found.confidence is None

    def test_from_a_folder_to_a_batch(self, tmp_path, scenes, room):
        source = self.write(tmp_path / "models", room)
        extract_geometry(source, scenes, tmp_path / "store", [SCENE], num_frames=4)
        diagnosis = examine_store(tmp_path / "store")
        assert diagnosis.can_run() and diagnosis.identity.teacher == "COLMAP"
        collator = build_collator(pseudo_geometry=TeacherStore(tmp_path / "store"))
        sample = {"messages": chat(), "frames": room.frames, "scene_id": SCENE, "frame_names": list(NAMES)}
        batch = collator([sample])
        assert (batch["depth"] > 0).float().mean() > 0.03 and batch["depth_alignment"].tolist() == [1]

    def test_text_gives_what_binary_files_give_and_needs_no_pycolmap(self, tmp_path, room, monkeypatch):
        source = self.write(tmp_path, room)
        binary, model = source.compute_geometry(room.frames, SOURCE), tmp_path / SCENE / "sparse" / "0"
        self.pycolmap.Reconstruction(str(model)).write_text(str(model))
        for file in model.glob("*.bin"):
            file.unlink()
        monkeypatch.setitem(sys.modules, "pycolmap", None)
        text = ColmapSource(tmp_path).compute_geometry(room.frames, SOURCE)
        assert (text.depth > 0).any() and text.confidence.any()
        for part in ("depth", "confidence", "intrinsics", "camera_to_world"):
            np.testing.assert_allclose(getattr(text, part), getattr(binary, part), rtol=1e-6, atol=1e-9)

    def test_points_of_another_model_are_refused(self, tmp_path, room):
        source, file = self.write(tmp_path, room), tmp_path / SCENE / "sparse" / "0" / "points3D.bin"
        file.write_bytes(bytes(8))
        with pytest.raises(ValueError, match=r"pictures show the points \[.*which points3D lacks"):
            source.compute_geometry(room.frames, SOURCE)

    def test_frames_without_a_pose_are_named(self, tmp_path, room):
        source = self.write(tmp_path, room, names=NAMES[:3])
        with pytest.raises(ValueError, match=r"no pose of the frames \['00030'\] \(1 in all\)"):
            source.compute_geometry(room.frames, SOURCE)

    def test_distortion_is_refused(self, tmp_path, room):
        source = self.write(tmp_path, room, model="OPENCV", params=(0.1, 0, 0, 0))
        with pytest.raises(ValueError, match="OPENCV.* has distortion. Undistort"):
            source.compute_geometry(room.frames, SOURCE)

    @pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
    def test_files_that_were_cut_are_refused(self, tmp_path, room, name):
        source = self.write(tmp_path, room)
        file = tmp_path / SCENE / "sparse" / "0" / name
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ValueError, match=f"{name} ends within an entry"):
            source.compute_geometry(room.frames, SOURCE)

    def test_broken_files_are_named(self, tmp_path, room):
        source = self.write(tmp_path, room, dense=True)
        broken = tmp_path / SCENE / "stereo" / "depth_maps" / "00010.jpg.geometric.bin"
        broken.write_bytes(b"99999&99999&1&" + b"\0" * 99)
        with pytest.raises(ValueError, match="00010.jpg.geometric.bin must have 39999200018 bytes .*, got 113"):
            source.compute_geometry(room.frames, SOURCE)
        broken.write_bytes(b"48&48&3&" + b"\0" * 99)
        with pytest.raises(ValueError, match="00010.jpg.geometric.bin must be a depth map of COLMAP"):
            source.compute_geometry(room.frames, SOURCE)
        (tmp_path / SCENE / "sparse" / "0" / "images.bin").write_bytes(b"\xff" * 40)
        with pytest.raises(ValueError, match="images.bin ends within an entry"):
            source.compute_geometry(room.frames, SOURCE)
        with pytest.raises(FileNotFoundError, match="no reconstruction of the scene scannet/nobody"):
            source.compute_geometry(room.frames, FrameSource("scannet/nobody", NAMES))
