"""From a folder of scenes to stored features, stopped and continued, and from there into a training batch."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commanding import run_command
from safetensors.torch import load_file
from training_samples import build_collator, build_processor, chat

from processing.benchmarks import build_chat, load_scene, load_task
from processing.benchmarks.readers.teacher import load_teacher_features
from processing.token_grid import TokenGrid
from trainer.teachers import (
    FrameSource,
    OriginalStoreTeacher,
    PointMapTeacher,
    TeacherStore,
    TransformersTeacher,
    extract_features,
    list_scenes,
    load_teacher,
)

REPOSITORY = Path(__file__).resolve().parents[3]
GRID = TokenGrid(72, 14, 2)  # that of training_samples: 3 x 3 tokens on 70 of 72 px
SCENES = ["scannet/room0000_00", "scannet/room0001_00", "scannet/room0002_00"]
NAMES = ("00000", "00010", "00020", "00030")


def extract(teacher, scenes, output, *, grid=GRID, scene_ids=SCENES, **options):
    return extract_features(teacher, grid, scenes, output, scene_ids, **options)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def stored(scenes, dinov2, tmp_path_factory):
    """A finished store. Do not write into it."""
    folder = tmp_path_factory.mktemp("stored")
    extract(TransformersTeacher(dinov2), scenes, folder)
    return folder


class TestExtraction:
    def test_stores_what_the_teacher_says_of_the_frames(self, scenes, stored, dinov2):
        teacher = TransformersTeacher(dinov2)
        assert list(files(stored)) == [f"{scene}.safetensors" for scene in SCENES]
        for scene in SCENES:
            frames = load_scene(scenes, scene, frame_names=NAMES).frames
            expected = teacher.compute_features(frames, None, GRID)
            assert expected.shape == (4, 3, 3, 16) and expected.std() > 0.1
            assert torch.equal(load_file(stored / f"{scene}.safetensors")["features"], expected.half())
            assert torch.equal(TeacherStore(stored).load_features(scene, NAMES, GRID), expected.half().float())

    def test_frames_are_those_of_the_training(self, scenes, dinov2, tmp_path):
        for rule in ("uniform", "coverage"):
            extract(TransformersTeacher(dinov2), scenes, tmp_path / rule, frames=rule, num_frames=2)
            for sample in load_task("scanqa", "val", scenes, frames=rule, num_frames=2):
                store = TeacherStore(tmp_path / rule)
                assert store.load_features(sample["scene_id"], sample["frame_names"], GRID).shape == (2, 3, 3, 16)

    def test_finished_scenes_are_not_made_again(self, scenes, dinov2, stored, tmp_path):
        output = shutil.copytree(stored, tmp_path / "out")
        (output / f"{SCENES[1]}.safetensors").unlink()
        times = {scene: (output / f"{scene}.safetensors").stat().st_mtime_ns for scene in (SCENES[0], SCENES[2])}
        report = extract(TransformersTeacher(dinov2), scenes, output)
        assert (report.scenes, report.computed) == (3, 1) and files(output) == files(stored)
        assert all((output / f"{scene}.safetensors").stat().st_mtime_ns == made for scene, made in times.items())
        assert extract(TransformersTeacher(dinov2), scenes, output).computed == 0

    def test_a_run_that_was_stopped_goes_on(self, scenes, dinov2, stored, tmp_path):
        class Dies(TransformersTeacher):
            def compute_features(self, *inputs):
                if inputs[-1].scene_id == SCENES[1]:
                    raise KeyboardInterrupt
                return super().compute_features(*inputs)

        with pytest.raises(KeyboardInterrupt):
            extract(Dies(dinov2), scenes, tmp_path)
        assert list(files(tmp_path)) == [f"{SCENES[0]}.safetensors"]
        assert extract(TransformersTeacher(dinov2), scenes, tmp_path).computed == 2
        assert files(tmp_path) == files(stored)

    def test_a_teacher_that_needs_geometry_is_refused(self, scenes, tmp_path):
        with pytest.raises(ValueError, match="point map .* gives no features of frames alone"):
            extract(PointMapTeacher(), scenes, tmp_path)


class TestRefusal:
    @pytest.mark.parametrize(
        ("teacher", "options", "told"),
        [
            ({"image_size": (28, 56)}, {}, "preprocessing 'whole frames squashed to 56 x 56.*not .*28 x 56"),
            ({"licence": "mit"}, {}, "licence 'apache-2.0', not 'mit'"),
            ({"protocol": "paper"}, {}, "protocol 'clean', not 'paper'"),
            ({}, {"grid": TokenGrid(72, 14, 1)}, "pool_stride 2, not 1"),
            ({}, {"grid": TokenGrid(70, 14, 2)}, r"image_size \(72, 72\), not \(70, 70\)"),
            ({}, {"num_frames": 2}, r"frames \['00000', .*'00030'\], not \['00000', '00030'\]"),
        ],
        ids=["preprocessing", "licence", "protocol", "stride", "size", "frames"],
    )
    def test_a_store_of_something_else(self, scenes, dinov2, stored, tmp_path, teacher, options, told):
        output = shutil.copytree(stored, tmp_path / "out")
        (output / f"{SCENES[2]}.safetensors").unlink()
        before = files(output)
        with pytest.raises(ValueError, match=told):
            extract(TransformersTeacher(dinov2, **teacher), scenes, output, **options)
        assert files(output) == before

    def test_a_store_of_another_teacher_even_of_other_scenes(self, scenes, save_dinov2, stored, tmp_path):
        output = shutil.copytree(stored, tmp_path / "out")
        (output / f"{SCENES[2]}.safetensors").unlink()
        other = TransformersTeacher(save_dinov2(seed=1))
        with pytest.raises(ValueError, match=f"version 'sha256:.*', not '{other.version}'"):
            extract(other, scenes, output, scene_ids=SCENES[2:])

    def test_a_file_that_is_not_whole(self, scenes, dinov2, stored, tmp_path):
        output = shutil.copytree(stored, tmp_path / "out")
        path = output / f"{SCENES[1]}.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} holds no whole teacher features"):
            extract(TransformersTeacher(dinov2), scenes, output)

    def test_scenes_that_are_not_there(self, scenes, dinov2, tmp_path):
        with pytest.raises(FileNotFoundError, match="room0009_00 has no frames"):
            extract(TransformersTeacher(dinov2), scenes, tmp_path, scene_ids=["scannet/room0009_00"])
        with pytest.raises(ValueError, match="name no scene"):
            extract(TransformersTeacher(dinov2), scenes, tmp_path, scene_ids=[])
        with pytest.raises(ValueError, match="is a video file"):
            videos = [f"vsibench/{SCENES[2]}"]
            extract(TransformersTeacher(dinov2), scenes, tmp_path, scene_ids=videos)


class TestScenes:
    def test_all_named_or_of_a_split(self, scenes):
        assert list_scenes(scenes) == SCENES
        assert list_scenes(scenes, split="val") == SCENES[1:2]
        assert list_scenes(scenes, scene_ids=SCENES[::-1]) == SCENES[::-1]

    def test_refusals(self, scenes, tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no scenes"):
            list_scenes(tmp_path)
        with pytest.raises(FileNotFoundError, match="Split 'val' is listed in .*infos_val.pkl, which does not"):
            list_scenes(tmp_path, split="val")
        with pytest.raises(ValueError, match="more than once"):
            list_scenes(scenes, scene_ids=[SCENES[0], SCENES[0]])
        with pytest.raises(ValueError, match="Give a split or scenes"):
            list_scenes(scenes, split="val", scene_ids=SCENES)


class TestOriginalFiles:
    def test_are_pooled_and_named(self, scenes, tmp_path):
        report = extract(OriginalStoreTeacher(scenes), scenes, tmp_path, grid=TokenGrid(48, 3, 8))
        store = TeacherStore(tmp_path)
        assert (store.name, store.licence, store.feature_size) == ("facebook/VGGT-1B", "cc-by-nc-4.0", 4)
        expected = load_teacher_features(scenes, SCENES[1], NAMES[::-1], TokenGrid(48, 3, 8))
        found = store.load_features(SCENES[1], NAMES[::-1], TokenGrid(48, 3, 8))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        assert report.scenes == 3

    def test_protocol_reaches_the_pooling(self, scenes):
        source = FrameSource(SCENES[0], NAMES)
        grid = TokenGrid(48, 30, 1)
        clean, paper = (
            OriginalStoreTeacher(scenes, protocol=protocol).compute_features(None, None, grid, source)
            for protocol in ("clean", "paper")
        )
        assert not torch.allclose(clean, paper)

    def test_need_names_and_files(self, scenes, tmp_path):
        with pytest.raises(ValueError, match="needs `scene_id` and `frame_names`"):
            OriginalStoreTeacher(scenes).compute_features(None, None, GRID)
        with pytest.raises(FileNotFoundError, match="holds no file .*vggt_sliced.npy"):
            OriginalStoreTeacher(tmp_path)


def arguments(scenes, output, *words, grid=("--grid", 72, 14, 2)):
    words = ["--data_dir", scenes, "--output_dir", output, *grid, *words]
    return list(map(str, words))


class TestCommand:
    def test_with_the_grid_of_a_model(self, scenes, dinov2, stored, tmp_path):
        build_processor().save_pretrained(tmp_path / "model")
        output = tmp_path / "out"
        grid = ("--model", tmp_path / "model")
        told = run_command("teachers", "--teacher", dinov2, *arguments(scenes, output, grid=grid)).stdout
        assert files(output) == files(stored)
        assert "tiny, licence apache-2.0" in told and "3 scenes (3 computed now)" in told

    def test_says_how_much_smaller_the_features_are(self, scenes, tmp_path):
        """Files in the original's own shape: 1036 patches in float32 against 196 tokens in float16."""
        data = shutil.copytree(scenes, tmp_path / "data")
        path = data / "scannet/posed_images_3d_feature_vggt/room0000_00/vggt_sliced.npy"
        np.save(path, np.random.default_rng(0).normal(size=(1, 4, 1036, 512)).astype(np.float32))
        words = arguments(data, tmp_path / "out", "--scene_ids", SCENES[0], grid=("--grid", 384, 14, 2))
        told = run_command("teachers", "--teacher", "vggt_sliced", *words).stdout
        ratio = path.stat().st_size / (tmp_path / "out" / f"{SCENES[0]}.safetensors").stat().st_size
        assert ratio == pytest.approx(1036 * 4 / (196 * 2), rel=0.01)
        assert f"{ratio:.1f} times smaller" in told and "10.6 times smaller" in told

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--teacher", "nobody/nothing"), "No model card states the licence of nobody/nothing"),
            (("--teacher", "vggt_sliced", "--layer", 3), "vggt_sliced takes ['licence'], got ['layer']"),
            (("--teacher", "vggt_sliced", "--split", "test", "--scene_ids", "a"), "Give a split or scenes"),
        ],
    )
    def test_errors_are_one_line(self, scenes, tmp_path, words, told):
        stderr = run_command("teachers", *words, *arguments(scenes, tmp_path), code=1).stderr
        assert stderr.splitlines()[-1].startswith(f"ide3d teachers: {told}")

    def test_model_or_grid(self, scenes, tmp_path):
        for words in ((), ("--model", "m", "--grid", 72, 14, 2)):
            words = arguments(scenes, tmp_path, grid=words)
            stderr = run_command("teachers", "--teacher", "vggt_sliced", *words, code=2).stderr
            assert "Give one of the options --model and --grid" in stderr


class TestLoading:
    def test_kinds(self, scenes, stored, dinov2):
        assert isinstance(load_teacher("point_map"), PointMapTeacher)
        assert isinstance(load_teacher("vggt_sliced", data_dir=scenes), OriginalStoreTeacher)
        assert isinstance(load_teacher(str(stored)), TeacherStore)
        teacher = load_teacher(str(dinov2), image_size=(28, 28), licence="mit", dtype=torch.bfloat16)
        assert isinstance(teacher, TransformersTeacher)
        assert (teacher.image_size, teacher.licence, teacher.dtype) == ((28, 28), "mit", torch.bfloat16)

    def test_options_of_another_kind_are_refused(self, stored, dinov2):
        for kind, option in (("point_map", "licence"), (str(stored), "licence"), (str(dinov2), "weights")):
            with pytest.raises(ValueError, match=rf"got \['{option}'\]"):
                load_teacher(kind, **{option: "x"})
        with pytest.raises(ValueError, match="`vggt_sliced` needs `data_dir`"):
            load_teacher("vggt_sliced")
        with pytest.raises(ValueError, match="one of point_map, vggt, .* got 'pointmap'"):
            load_teacher("pointmap")


class TestTraining:
    def sample(self, scenes, scene=SCENES[0], names=NAMES, **changes):
        video = load_scene(scenes, scene, frame_names=names)
        found = {"scene_id": scene, "frames": video.frames, "frame_names": video.frame_names}
        return {"messages": chat(), **found, **changes}

    def test_features_reach_the_batch(self, scenes, stored):
        """Of the frames of each sample, in their order; beside a sample that has no video."""
        store = TeacherStore(stored)
        samples = [
            self.sample(scenes),
            {"messages": chat(kind=None)},
            self.sample(scenes, SCENES[2], ("00030", "00010")),
        ]
        batch = build_collator(teacher=store)(samples)["teacher_features"]
        assert batch.shape == (3, 4, 3, 3, 16) and not batch[1].any() and not batch[2, 2:].any()
        assert torch.equal(batch[0], store.load_features(SCENES[0], NAMES, GRID))
        assert torch.equal(batch[2, :2], store.load_features(SCENES[2], NAMES, GRID)[[3, 1]])

    def test_samples_of_a_benchmark(self, scenes, stored):
        """`load_task` names the frames, `load_scene` reads them, the store knows them."""
        row = load_task("scanqa", "train", scenes)[0]
        video = load_scene(scenes, row["scene_id"], frame_names=row["frame_names"])
        sample = self.sample(scenes, row["scene_id"], frames=video.frames, frame_names=row["frame_names"])
        sample["messages"] = build_chat("scanqa", row, protocol="clean", stage="train")
        batch = build_collator(teacher=TeacherStore(stored))([sample])
        assert batch["teacher_features"].shape == (1, 4, 3, 3, 16) and batch["teacher_features"].any()

    def test_a_live_teacher_gives_what_was_stored(self, scenes, stored, dinov2):
        sample = self.sample(scenes)
        live, read = (
            build_collator(teacher=teacher)([sample])["teacher_features"]
            for teacher in (TransformersTeacher(dinov2), TeacherStore(stored))
        )
        assert torch.equal(live.half().float(), read)

    def test_mismatches_name_the_sample_and_both_sides(self, scenes, stored):
        collate = build_collator(teacher=TeacherStore(stored))
        with pytest.raises(ValueError, match="'scannet/room0000_00'.*holds the frames 00000.*the sample has 00005"):
            collate([self.sample(scenes, frame_names=("00005", *NAMES[1:]))])
        with pytest.raises(ValueError, match="needs `scene_id` and `frame_names`"):
            collate([self.sample(scenes, frame_names=None)])
        with pytest.raises(ValueError, match="frame_names must be the names of 4 frames"):
            collate([self.sample(scenes, frame_names=NAMES[:2])])

    def test_one_protocol_for_the_teacher_and_the_training(self, scenes, stored, dinov2):
        """The trainer sets that of the collator; the teacher has its own."""
        collate = build_collator(teacher=TeacherStore(stored), protocol="paper")
        with pytest.raises(ValueError, match="pools its patches by protocol 'clean', the training is 'paper'"):
            collate([self.sample(scenes)])
        with pytest.raises(ValueError, match="by protocol 'paper', the training is 'clean'"):
            build_collator(teacher=TransformersTeacher(dinov2, protocol="paper"))([self.sample(scenes)])

    def test_a_teacher_of_another_shape_is_refused(self, scenes):
        class Odd(PointMapTeacher):
            def compute_features(self, *inputs):
                return torch.ones(4, 2, 3, 5)

        with pytest.raises(ValueError, match=r"teacher_features must have shape \(4, 3, 3, 'C'\), got \(4, 2, 3, 5\)"):
            build_collator(teacher=Odd())([self.sample(scenes)])

    def test_steps_lower_the_distillation(self, scenes, dinov2, tmp_path, make_trainer):
        from training_samples import build_model

        store = tmp_path / "store"
        extract(TransformersTeacher(dinov2), scenes, store)
        samples = [self.sample(scenes, scene) for scene in SCENES[:2]]
        options = {"model": build_model(teacher_size=16), "collator": build_collator(teacher=TeacherStore(store))}
        trainer = make_trainer(samples, max_steps=8, **options)
        trainer.train()
        losses = [entry["loss_distillation"] for entry in trainer.state.log_history if "loss_distillation" in entry]
        assert len(losses) == 8 and losses[-1] < 0.8 * losses[0]


def command(*words, processes=1):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [sys.executable, *launch, "-m", "trainer.teachers", *map(str, words)]


def environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
class TestProcesses:
    def test_two_share_the_scenes(self, scenes, dinov2, stored, tmp_path):
        """The files of one process, byte for byte; a second run of three makes the one that is missing."""
        output = tmp_path / "out"
        for processes, told in ((2, "3 scenes (3 computed now)"), (2, "3 scenes (1 computed now)")):
            run = subprocess.run(
                command("--teacher", dinov2, *arguments(scenes, output), processes=processes),
                env=environment(),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert run.returncode == 0, run.stderr[-3000:]
            assert run.stdout.count(told) == 1 and files(output) == files(stored)
            (output / f"{SCENES[1]}.safetensors").unlink()

    def test_a_killed_run_goes_on(self, dinov2, tmp_path):
        """Killed without warning after the first of its files: what is there is whole, and the rest follows."""
        from processing.benchmarks.export.rooms import export_rooms

        data = export_rooms(tmp_path / "data", num_scenes=8, image_size=32, num_frames=8)
        words = ("--teacher", dinov2, *arguments(data, tmp_path / "out"), "--batch_size", 1)
        process = subprocess.Popen(command(*words), env=environment(), cwd=tmp_path, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 900
        while not list((tmp_path / "out").rglob("*.safetensors")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = list((tmp_path / "out").rglob("*.safetensors"))
        assert 1 <= len(there) < 24
        store = TeacherStore(tmp_path / "out")
        names = [f"{10 * index:05d}" for index in range(8)]
        for path in there:
            assert store.load_features(f"scannet/{path.stem}", names, GRID).any()
        run = subprocess.run(command(*words), env=environment(), cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0 and f"24 scenes ({24 - len(there)} computed now)" in run.stdout
        found = [path.name for path in (tmp_path / "out" / "scannet").iterdir()]
        assert len(found) == 24 and not [name for name in found if "unfinished" in name]
