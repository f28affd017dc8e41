"""Modes by name: clicks, lifted regions, boxes in words, and that answers of two modes are never taken together."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yaml import safe_load

from ide3d import nano_model
from processing import PosedVideo
from processing.benchmarks import load_scene, load_task
from processing.benchmarks.export.rooms import export_rooms
from processing.boxes_in_words import write_boxes
from processing.oriented_boxes import box_in_camera
from processing.token_grid import TokenGrid
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation import EvaluationSettings, run_evaluation, score_answers
from trainer.evaluation.clicks import make_clicks, read_clicks
from trainer.evaluation.lifting import lift_answers, load_truth

GRID, FINE = TokenGrid(70, 14, 1), TokenGrid(70, 7, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return export_rooms(tmp_path_factory.mktemp("data") / "rooms", num_scenes=1, image_size=70, num_frames=3)


@pytest.fixture
def settings(data, model_folder, tmp_path):
    def build(task="scanrefer", **changes):
        fields = {"model": str(model_folder), "data": str(data), "output": str(tmp_path / "out"), "meteor": False}
        return EvaluationSettings(task=task, **{**fields, "max_new_tokens": 4, "mode": "rgb_only", **changes})

    return build


def write_clicks(path, samples, change=None):
    """Write clicks into the middle of the second frame."""
    clicks = {
        sample["id"]: {
            "scene_id": sample["scene_id"],
            "frame": sample["frame_names"][1],
            "frame_size": [70, 70],
            "point": [35.5, 20.0],
        }
        for sample in samples
    }
    if change:
        change(clicks)
    path.write_text(json.dumps({"source": "a person", "clicks": clicks}))
    return path


def scan2cap(data):
    return load_task("scan2cap", "val", data, num_frames=3, mode="rgb_only").to_list()


class TestClicks:
    def test_they_are_read_by_sample(self, data, tmp_path):
        samples = scan2cap(data)
        path = write_clicks(tmp_path / "clicks.json", samples, lambda clicks: clicks.update({samples[0]["id"]: None}))
        read = read_clicks(path, samples)
        assert read.source == "a person" and read.marks[samples[0]["id"]] is None
        mark = read.marks[samples[1]["id"]]
        assert (mark.frame, mark.frame_size, mark.point) == (1, (70, 70), (35.5, 20.0))

    @pytest.mark.parametrize(
        ("part", "value", "told"),
        [
            ("scene_id", "scannet/other", "is of the scene 'scannet/other'"),
            ("frame", "00500", "which is not shown; shown are 00000, 00010, 00020"),
            ("point", [70.5, 1], "lies outside of the frame"),
            ("point", "middle", "`point` must be 2 numbers"),
        ],
    )
    def test_what_cannot_be_meant_is_named_with_its_sample(self, data, tmp_path, part, value, told):
        samples = scan2cap(data)
        name = samples[1]["id"]
        path = write_clicks(tmp_path / "clicks.json", samples, lambda clicks: clicks[name].update({part: value}))
        with pytest.raises(ValueError, match=f"clicks.json, sample '{name}': .*{told}"):
            read_clicks(path, samples)

    def test_a_sample_without_an_entry_is_named(self, data, tmp_path):
        samples = scan2cap(data)
        path = write_clicks(tmp_path / "clicks.json", samples, lambda clicks: clicks.pop(samples[2]["id"]))
        with pytest.raises(ValueError, match=rf"no click for 1 of {len(samples)} samples, .* '{samples[2]['id']}'"):
            read_clicks(path, samples)

    def test_a_click_made_with_depth_lies_on_what_the_box_holds(self, data, tmp_path):
        samples = load_task("scan2cap", "val", data, num_frames=3).to_list()
        made = make_clicks(data, tmp_path / "clicks.json", num_frames=3)
        assert json.loads((tmp_path / "clicks.json").read_text())["source"] == "given boxes, poses and depth"
        parts = ("frames", "poses", "depth")
        scene = load_scene(data, samples[0]["scene_id"], frame_names=samples[0]["frame_names"], parts=parts)
        regions = SceneRegions(scene, GRID, "depth", "clean")
        on_object = 0
        for sample in samples:
            mark = made.marks[sample["id"]]
            if not len(sample["input_box"]):
                assert mark is None
                continue
            cells = mark.to_cells(GRID, 3)
            mask = regions.masks([sample["input_box"]])[0, mark.frame].numpy()
            on_object += bool((cells & mask).any())
        assert on_object >= 0.9 * sum(mark is not None for mark in made.marks.values()) > 3

    def test_a_click_made_by_poses_is_the_projected_centre(self, data, tmp_path):
        samples = load_task("scan2cap", "val", data, num_frames=3).to_list()
        made = make_clicks(data, tmp_path / "clicks.json", num_frames=3, regions="poses")
        scene = load_scene(data, samples[0]["scene_id"], frame_names=samples[0]["frame_names"], parts=("poses",))
        checked = 0
        for sample in samples:
            if (mark := made.marks[sample["id"]]) is None:
                continue
            pose = np.asarray(scene.camera_to_world, np.float64)[mark.frame]
            local = np.linalg.inv(pose) @ [*sample["input_box"][:3], 1]
            pixel = np.asarray(scene.intrinsics, np.float64)[mark.frame] @ local[:3]
            np.testing.assert_allclose(mark.point, pixel[:2] / pixel[2] + 0.5, atol=0.02)
            checked += 1
        assert checked > 1

    def test_clicks_on_frames_of_another_size_are_refused(self, settings, data, tmp_path):
        samples = scan2cap(data)

        def enlarge(clicks):
            for click in clicks.values():
                click["frame_size"] = [140, 140]

        path = write_clicks(tmp_path / "clicks.json", samples, enlarge)
        with pytest.raises(ValueError, match=r"click of sample '\d+' is of a frame of \(140, 140\) px"):
            run_evaluation(settings("scan2cap", clicks=str(path)))

    def test_other_clicks_are_another_run(self, settings, data, tmp_path):
        samples = scan2cap(data)
        path = write_clicks(tmp_path / "clicks.json", samples)
        results = run_evaluation(settings("scan2cap", clicks=str(path)))
        assert results["clicks"] == "a person"
        page = Path(settings().output, "report.md").read_text()
        assert "by clicks: a person" in page
        write_clicks(path, samples, lambda clicks: clicks[samples[0]["id"]].update(point=[1.0, 1.0]))
        with pytest.raises(ValueError, match=r"answers of another run(.|\n)*  samples_digest: "):
            run_evaluation(settings("scan2cap", clicks=str(path)))


class TestLifting:
    def test_a_region_becomes_the_box_around_its_points(self):
        """Of a wall 2 m away, cells at the left are its left part, less 15 % at each end."""
        size = 70
        intrinsics = np.array([[70.0, 0, 34.5], [0, 70.0, 34.5], [0, 0, 1]])
        depth = np.full((1, size, size), 2.0, np.float32)
        scene = PosedVideo(np.zeros((1, size, size, 3), np.uint8), depth, intrinsics[None], np.eye(4)[None])
        mask = torch.zeros(1, 5, 5, dtype=torch.bool)
        mask[0, :, :2] = True
        box = SceneRegions(scene, GRID, "depth", "clean").enclosing_box(mask)
        # 28 of 70 pixel columns from the left edge, -1 m at a focal length of the width: -1 to -0.2 m.
        np.testing.assert_allclose(box[:3], [-0.6, 0.0, 2.0], atol=0.03)
        np.testing.assert_allclose(box[3:], [0.7 * 0.8, 0.7 * 2.0, 0.0], atol=0.05)

    def test_a_region_without_measurements_has_no_box(self):
        frames, depth = np.zeros((1, 70, 70, 3), np.uint8), np.zeros((1, 70, 70), np.float32)
        depth[0, 60:, 60:] = 1.0
        intrinsics = np.array([[70.0, 0, 34.5], [0, 70.0, 34.5], [0, 0, 1]])
        scene = PosedVideo(frames, depth, intrinsics[None], np.eye(4)[None])
        mask = torch.zeros(1, 5, 5, dtype=torch.bool)
        mask[0, 0, 0] = True
        assert SceneRegions(scene, GRID, "depth", "clean").enclosing_box(mask) is None

    def test_right_boxes_in_words_score_everything(self, settings, data):
        chosen = settings("multi3drefer", finding="words", numbers="digits", max_new_tokens=None)
        samples = load_truth(chosen, "val", 3)
        scene = load_scene(data, samples[0]["scene_id"], frame_names=samples[0]["frame_names"], parts=("poses",))
        poses = np.asarray(scene.camera_to_world, np.float64)
        right = [{"text": write_boxes([box_in_camera(b, poses[1], 1) for b in s["gt_boxes"]])} for s in samples]
        lifted, unparsable = lift_answers(chosen, samples, right, GRID)
        assert unparsable == 0
        scores = score_answers("multi3drefer", samples, lifted, "clean")
        assert scores["f1@0.5"] == pytest.approx(100)
        _, unparsable = lift_answers(chosen, samples, [{"text": "a chair"}, *right[1:]], GRID)
        assert unparsable == 1

    def test_true_regions_find_boxes(self, settings, data):
        """The cells of the true boxes, lifted, overlap them: the way back is right."""
        chosen = settings("scanrefer")
        samples = load_truth(chosen, "val", 3)
        parts = ("frames", "poses", "depth")
        scene = load_scene(data, samples[0]["scene_id"], frame_names=samples[0]["frame_names"], parts=parts)
        regions = SceneRegions(scene, FINE, "depth", "clean")
        answers = []
        for sample in samples:
            flat = regions.masks(sample["gt_boxes"])[0].flatten(1)
            cells = {name: row.nonzero().flatten().tolist() for name, row in zip(scene.frame_names, flat, strict=True)}
            answers.append({"regions": [{"cells": cells, "score": 1.0}]})
        lifted, _ = lift_answers(chosen, samples, answers, FINE)
        distances = [
            np.linalg.norm(np.subtract(answer["boxes"][0][:3], sample["gt_boxes"][0][:3]))
            for sample, answer in zip(samples, lifted, strict=True)
            if answer["boxes"]
        ]
        assert len(distances) > 3 and np.median(distances) < 0.5


class TestNeverMixed:
    @pytest.mark.parametrize("task", ["scanrefer", "multi3drefer"])
    def test_each_mode_has_its_folder_and_its_name(self, settings, tmp_path, task):
        found = run_evaluation(settings(task))
        given = run_evaluation(settings(task, mode=None, output=str(tmp_path / "given")))
        assert (found["mode"], given["mode"]) == ("rgb_only", "proposals")
        assert found["proposals"] is None and found["region_source"] is None and given["finding"] is None
        for results, folder in ((found, "out"), (given, "given")):
            page = (tmp_path / folder / "report.html").read_text()
            assert f"Mode {results['mode']}" in page
            entry = safe_load((tmp_path / folder / "model_index.yml").read_text())["model-index"][0]["results"][0]
            assert entry["dataset"]["config"] == results["mode"]
            assert all(metric["name"].endswith(f", {results['mode']})") for metric in entry["metrics"])
        with pytest.raises(ValueError, match=r"answers of another run(.|\n)*  mode: 'rgb_only', now 'proposals'"):
            run_evaluation(settings(task, mode="proposals"))

    def test_pictures_of_found_regions_are_drawn(self, settings):
        run_evaluation(settings())
        pictures = sorted(Path(settings().output, "pictures").glob("*.jpg"))
        assert pictures
        with Image.open(pictures[0]) as image:
            assert image.width == 3 * 320

    def test_answers_of_two_modes_are_not_scored_together(self, settings):
        samples = load_truth(settings(), "val", 3)[:2]
        with pytest.raises(ValueError, match="two modes"):
            score_answers("scanrefer", samples, [{"boxes": []}, {"scores": [0.5]}], "clean")
        with pytest.raises(ValueError, match='"scores" and "boxes", of two modes'):
            score_answers("scanrefer", samples, [{"boxes": [], "scores": [0.5]}] * 2, "clean")

    @pytest.mark.parametrize(
        ("row", "told"),
        [
            ({"scores": [0.5]}, "must have id, regions, scene_id"),
            ({"regions": [{"cells": {"00010": [99]}, "score": 0.1}]}, "lists of cells of frames that were shown"),
            ({"regions": [{"cells": {"99999": [1]}, "score": 0.1}]}, "lists of cells of frames that were shown"),
            ({"regions": [{"cells": {"00010": [1]}, "score": float("nan")}]}, "and a score"),
        ],
    )
    def test_stored_answers_of_another_mode_are_named(self, settings, row, told):
        run_evaluation(settings())
        file = Path(settings().output) / "answers.00000.jsonl"
        first, *others = (json.loads(line) for line in file.read_text().splitlines())
        kept = {key: first[key] for key in ("id", "scene_id")}
        file.write_text("".join(json.dumps(entry) + "\n" for entry in [*others, {**kept, **row}]))
        with pytest.raises(ValueError, match=rf"line {len(others) + 1}: .*{told}"):
            run_evaluation(settings())


class TestSettings:
    def test_the_default_is_what_tasks_always_did(self, settings):
        assert settings("scanqa", mode=None).mode == "rgb_only"
        assert settings("scanqa", mode=None, frames="coverage").mode == "proposals"
        assert settings("scan2cap", mode=None).mode == "proposals"

    @pytest.mark.parametrize(
        ("task", "changes", "told"),
        [
            ("scanqa", {"mode": "proposals"}, "scanqa has the mode 'rgb_only'"),
            ("scanrefer", {"mode": "rgbd"}, "`mode` must be one of"),
            ("scanrefer", {"frames": "listed"}, "frames='uniform'"),
            ("scanrefer", {"boxes": "gt"}, "no use for `boxes`"),
            ("scanrefer", {"regions": "poses"}, "no use for `regions`"),
            ("scanrefer", {"numbers": "bins"}, "no use for `numbers`"),
            ("scanrefer", {"mode": None, "finding": "words"}, "no use for `finding`"),
            ("scanqa", {"clicks": "clicks.json"}, "no use for `clicks`"),
            ("scan2cap", {}, "needs `clicks`"),
            ("scan2cap", {"clicks": "clicks.json", "protocol": "paper"}, "`protocol` of scan2cap"),
        ],
    )
    def test_settings_of_another_mode_are_named(self, settings, task, changes, told):
        with pytest.raises(ValueError, match=told):
            settings(task, **changes)

    def test_numbers_as_tokens_need_a_tokenizer_that_has_them(self, settings):
        with pytest.raises(ValueError, match='`numbers` is "tokens", but the tokenizer has no <bin_0>'):
            run_evaluation(settings(finding="words", numbers="tokens"))

    def test_boxes_are_read_as_the_tokenizer_writes_them(self, settings):
        told = run_evaluation(settings(finding="words", model=str(nano_model()), max_new_tokens=None))
        assert told["numbers"] == "tokens"
        assert told["unparsable"] < told["num_samples"] / 2

    def test_scores_are_left_for_later(self, settings):
        chosen = settings(answer_only=True)
        told = run_evaluation(chosen)
        assert "scores" not in told and told["num_samples"] > 2
        assert not (Path(chosen.output) / "results.json").exists()
        assert run_evaluation(dataclasses.replace(chosen, answer_only=False))["scores"]
