"""Arms of cameras, several layers and pseudo geometry: alike at the start, trained by their terms, measured."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.emergence import models, training
from examples.emergence.files import RunFiles
from examples.emergence.pseudo import distort_geometry
from examples.emergence.recipe import Arm
from examples.emergence.rooms import RoomArrays
from examples.emergence.run import list_read_layers
from trainer import IDE3DDataCollator
from trainer.teachers.pseudo_rules import ConfidenceRule

ALL = {"depth": 0.5, "cross_view": 0.1, "teacher": 0.5, "in_questions": 0.0}
ROWS = {
    "exposure": None,
    "all": ALL,
    "cameras": {**ALL, "pose": 1.0, "scale": 1.0, "camera_layer": "vision.4"},
    "pose": {**ALL, "pose": 1.0, "camera_layer": "vision.4"},
    "layers": {**ALL, "layers": ["vision.2", "language.2"]},
    "together": {**ALL, "scale": 1.0, "layers": ["vision.2", "language.2"]},
    "pseudo": {**ALL, "pseudo": True},
}
HEADS = ("pose_head", "scale_head", "teacher_projector")


def test_arms_of_a_seed_share_all_first_weights_that_they_share(write_study):
    _, study = write_study(rows=ROWS, pairs=[])
    processor = models.build_processor(study)
    states = {name: models.build_model(study, arm, 1, processor).state_dict() for name, arm in study.rows.items()}
    for name, state in states.items():
        for key, value in states["exposure"].items():
            if name not in ("layers", "together") or not key.startswith("teacher_projector."):
                assert torch.equal(state[key], value), (name, key)
    assert set(states["all"]) == set(states["pseudo"]) == set(states["exposure"])
    for key in states["pose"]:
        assert torch.equal(states["pose"][key], states["cameras"][key]), key
    for key in states["layers"]:
        assert torch.equal(states["layers"][key], states["together"][key]), key
    other = models.build_model(study, study.rows["pose"], 2, processor).state_dict()
    assert not torch.equal(
        other["pose_head.vision_4.linear_1.weight"], states["pose"]["pose_head.vision_4.linear_1.weight"]
    )


@pytest.mark.slow
def test_arms_train_what_they_add_in_the_pool_phase_alone(prepare, monkeypatch):
    _, study = prepare(rows=ROWS, pairs=[], seeds=[1])
    weights, original = [], training.train_phase

    def record(model, *arguments, **options):
        cost = original(model, *arguments, **options)
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        return cost

    monkeypatch.setattr(training, "train_phase", record)
    processor = models.build_processor(study)
    terms = {"cameras": {"loss_pose", "loss_scale"}, "layers": set(), "pseudo": {"loss_cross_view_depth"}}
    for name, added in terms.items():
        weights.clear()
        training.train_run(study, name, 1)
        (pooled, asked), arm = weights, study.rows[name]
        start = models.build_model(study, arm, 1, processor).state_dict()
        heads = [key for key in start if key.startswith(HEADS) and key.endswith("linear_2.weight")]
        assert heads
        for key in heads:
            assert not torch.equal(pooled[key], start[key]), key
            assert torch.equal(asked[key], pooled[key]), key
        trained = models.load_run(study, name, 1, processor).state_dict()
        assert all(torch.equal(trained[key], asked[key]) for key in trained)
        about = json.loads(RunFiles(Path(study.output_dir), name, 1).training.read_text())
        logged = about["phases"]["pool"]["history"][0]
        assert all(logged[term] > 0 for term in {"loss_distillation", "loss_depth", *added}), (name, logged)


def test_layers_that_losses_read_are_told(write_study):
    _, study = write_study(rows=ROWS, pairs=[])
    processor, found = models.build_processor(study), {}
    for name, arm in study.rows.items():
        found[name] = set(list_read_layers(models.build_model(study, arm, 1, processor), arm))
    tower = {"vision.1", "vision.2", "vision.3", "vision.4"}
    assert found["exposure"] == set()
    assert found["all"] - tower == found["pseudo"] - tower == found["layers"] - tower == {"language.0", "language.2"}
    only = Arm(scale=1.0, camera_layer="vision.3")
    assert list_read_layers(models.build_model(study, only, 1, processor), only) == ["vision.3"]


class TestPseudoGeometry:
    """The truth in an unknown scale that depth and poses share, with errors, holes and confidences."""

    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 5, (4, 64, 64)).astype(np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32), (4, 1, 1))
    poses[:, :3, 3] = rng.normal(0, 1, (4, 3))

    def test_one_factor_of_a_room(self):
        factors = []
        for index in range(40):
            found = distort_geometry(self.depth, self.poses, index)
            seen = found["depth"] > 0
            ratio = found["depth"][seen] / self.depth[seen]
            factors.append(float(np.median(ratio)))
            moved = found["camera_to_world"][:, :3, 3] / self.poses[:, :3, 3]
            np.testing.assert_allclose(moved, moved[0, 0], rtol=1e-5)
            assert moved[0, 0] == pytest.approx(factors[-1], rel=0.03)
            np.testing.assert_array_equal(found["camera_to_world"][:, :3, :3], self.poses[:, :3, :3])
            assert np.std(np.log(ratio / factors[-1])) == pytest.approx(0.058, abs=0.01)
            assert 0.75 < seen.mean() < 0.95 and np.array_equal(seen, found["depth_confidence"] > 0)
        assert 0.25 <= min(factors) < 0.5 and 2 < max(factors) <= 4.2

    def test_the_same_at_every_visit_and_other_in_other_rooms(self):
        one, again, other = (distort_geometry(self.depth, self.poses, index) for index in (5, 5, 6))
        assert np.array_equal(one["depth"], again["depth"]) and not np.array_equal(one["depth"], other["depth"])

    def test_what_is_sure_is_nearer_to_the_truth(self):
        found = distort_geometry(self.depth, self.poses, 0)
        seen = found["depth"] > 0
        error = np.abs(
            np.log(found["depth"][seen] / self.depth[seen] / np.median(found["depth"][seen] / self.depth[seen]))
        )
        kept = ConfidenceRule(drop_share=0.5).mask(found["depth"], found["depth_confidence"])[seen] > 0
        assert error[kept].mean() < 0.7 * error[~kept].mean()

    def test_it_goes_through_the_path_of_pseudo_geometry(self, prepared):
        """Masked, of median depth 2, of unknown scale, and with a teacher in this scale; questions keep the truth."""
        _, study = prepared
        arm = dataclasses.replace(study.rows["all"], pseudo=True, in_questions=0.0)
        rooms, processor = training.open_pool(study, arm), models.build_processor(study)
        truth = RoomArrays(Path(study.output_dir) / "rooms" / "train")
        batches = []
        for number, samples in ((0, truth), (1, rooms)):
            teacher = models.build_teacher(study, (Arm(), arm)[number])
            batches.append(IDE3DDataCollator(processor, teacher, protocol="clean")([samples[3]]))
        measured, pseudo = batches
        assert "depth_alignment" not in measured and pseudo["depth_alignment"].tolist() == [1]
        assert torch.equal(measured["pixel_values_videos"], pseudo["pixel_values_videos"])
        seen = pseudo["depth"] > 0
        assert pseudo["depth"][seen].median() == pytest.approx(2.0, rel=0.1) and 0.5 < seen.float().mean() < 0.95
        ratio = pseudo["depth"][seen] / measured["depth"][seen]
        assert (ratio / ratio.median()).log().abs().median() < 0.08
        assert pseudo["teacher_features"].abs().sum(-1).gt(0).float().mean() > 0.8
        refused = IDE3DDataCollator(processor, models.build_teacher(study), protocol="clean")([rooms[3]])
        assert "teacher_features" not in refused

    def test_the_teacher_does_not_depend_on_the_unknown_scale(self, prepared):
        _, study = prepared
        processor, truth = models.build_processor(study), training.open_pool(study, Arm())[2]
        teacher, features = models.build_teacher(study, Arm(pseudo=True)), []
        for factor in (0.3, 3.0):
            moved = truth["camera_to_world"].copy()
            moved[:, :3, 3] *= factor
            sample = {**truth, "depth": truth["depth"] * np.float32(factor), "camera_to_world": moved}
            sample |= {"geometry_kind": "pseudo", "depth_alignment": "scale"}
            features.append(IDE3DDataCollator(processor, teacher, protocol="clean")([sample])["teacher_features"])
        torch.testing.assert_close(*features, atol=1e-3, rtol=1e-3)
