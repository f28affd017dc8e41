"""Surface normals: right on planes, absent at edges and holes, trained in the pool phase and thrown away."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from examples.emergence import models, training
from examples.emergence.files import RunFiles, describe_lesson, describe_run
from examples.emergence.normals import NormalsTrainer, compare_normals, measure_normals
from examples.emergence.recipe import read_study
from examples.emergence.results import read_archive
from trainer import IDE3DTrainer

REPOSITORY = Path(__file__).parents[3]
INTRINSICS = torch.tensor([[[40.0, 0.0, 15.5], [0.0, 44.0, 15.5], [0.0, 0.0, 1.0]]])
ALL = {"depth": 0.5, "cross_view": 0.1, "teacher": 0.5, "in_questions": 0.0}
ROWS = {"exposure": None, "all": ALL, "all_normals": {**ALL, "normals": 2.0}}


def plane_depth(normal: torch.Tensor, distance: float, size: int = 32) -> torch.Tensor:
    """Return the depth (1, size, size) at which rays meet the plane of the points p with -normal p = distance."""
    v, u = torch.meshgrid(torch.arange(size).double(), torch.arange(size).double(), indexing="ij")
    (fx, _, cx), (_, fy, cy), _ = INTRINSICS[0].double().tolist()
    rays = torch.stack(((u - cx) / fx, (v - cy) / fy, torch.ones_like(u)), -1)
    return (-distance / (rays @ normal.double())).float().unsqueeze(0)


class TestTargets:
    """Normals of patches of 8 px from depth, in the camera's own axes."""

    def test_a_wall_that_faces_the_camera(self):
        normals, valid = measure_normals(torch.full((1, 32, 32), 3.0), INTRINSICS, 8)
        assert normals.shape == (1, 4, 4, 3) and valid.shape == (1, 4, 4) and valid.all()
        torch.testing.assert_close(normals, torch.tensor([0.0, 0.0, -1.0]).expand(1, 4, 4, 3), atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("around_x", "around_y"), [(40, 0), (-35, 0), (0, 30), (25, -30)])
    def test_a_plane_at_an_angle(self, around_x, around_y):
        a, b = math.radians(around_x), math.radians(around_y)
        true = torch.tensor([math.sin(b) * math.cos(a), math.sin(a), -math.cos(b) * math.cos(a)])
        normals, valid = measure_normals(plane_depth(true, 2.0), INTRINSICS, 8)
        assert valid.all()
        torch.testing.assert_close(normals, true.expand(1, 4, 4, 3), atol=1e-4, rtol=0)

    def test_a_floor_points_up(self):
        """The y axis of the camera points down, so that up is negative."""
        depth = plane_depth(torch.tensor([0.0, -1.0, 0.0]), 1.5)
        depth[:, :16] = 0  # above the horizon
        normals, valid = measure_normals(depth, INTRINSICS, 8)
        assert not valid[0, :2].any() and valid[0, 3].all()
        torch.testing.assert_close(normals[0, 3], torch.tensor([0.0, -1.0, 0.0]).expand(4, 3), atol=1e-4, rtol=0)

    def test_holes_and_depth_edges_are_left_out(self):
        """What is left of a patch gives its normal, if it is half of it."""
        depth = torch.full((1, 32, 32), 2.0)
        depth[0, :8, :8] = 0  # no depth at all
        depth[0, 0:2, 8:16] = 0  # two of eight lines are missing
        depth[0, 8:16, 0:3] = 4.0  # an edge through the patch
        depth[0, 8:16, 8:16] += (torch.arange(8) % 2).float()  # nothing but edges
        depth[0, 16:24, 0:8] += 0.09 * torch.arange(8)  # slanted, by less than the largest step
        normals, valid = measure_normals(depth, INTRINSICS, 8)
        assert not valid[0, 0, 0] and not valid[0, 1, 1] and int((~valid).sum()) == 2
        assert not normals[~valid].any()
        facing = torch.tensor([0.0, 0.0, -1.0])
        torch.testing.assert_close(normals[0, 0, 1], facing, atol=1e-4, rtol=0)
        torch.testing.assert_close(normals[0, 1, 0], facing, atol=1e-4, rtol=0)
        assert normals[0, 2, 0, 0] > 0.5  # deeper to the right: such a surface faces right

    def test_a_step_that_joins_two_patches_touches_neither(self):
        depth = torch.full((1, 32, 32), 2.0)
        depth[..., 8:] = 2.1  # less than the largest step, and still no normal: squares lie within patches
        normals, valid = measure_normals(depth, INTRINSICS, 8)
        assert valid.all()
        torch.testing.assert_close(normals, torch.tensor([0.0, 0.0, -1.0]).expand(1, 4, 4, 3), atol=1e-4, rtol=0)


class TestTerm:
    """1 - cosine, in the mean over the patches with a normal."""

    up = torch.tensor([0.0, -1.0, 0.0])

    def test_of_right_opposite_and_unrelated_directions(self):
        normals, valid = self.up.expand(3, 3), torch.ones(3, dtype=torch.bool)
        predicted = torch.stack((5 * self.up, -self.up, torch.tensor([2.0, 0.0, 0.0])))
        assert [compare_normals(predicted[i : i + 1], normals[:1], valid[:1]).item() for i in range(3)] == [0, 2, 1]
        assert compare_normals(predicted, normals, valid).item() == 1

    def test_patches_without_a_normal_count_for_nothing(self):
        predicted = torch.stack((self.up, -self.up)).requires_grad_()
        loss = compare_normals(predicted, torch.stack((self.up, 0 * self.up)), torch.tensor([True, False]))
        assert loss.item() == 0
        loss.backward()
        assert not predicted.grad[1].any()
        assert compare_normals(predicted, 0 * predicted.detach(), torch.zeros(2, dtype=torch.bool)).item() == 0


def test_normals_are_trained_in_the_pool_phase_and_thrown_away(prepare, monkeypatch):
    _, study = prepare(rows=ROWS, pairs=[], seeds=[1])
    layers, reached = [], []
    optimize, compute = NormalsTrainer.create_optimizer, NormalsTrainer.compute_extra_terms

    def keep_layer(self, *args):
        optimizer, layer = optimize(self, *args), self.model.geometric_validator.normals
        layers.append((layer, layer.weight.detach().clone()))
        rates = {group["lr"] for group in optimizer.param_groups if any(p is layer.weight for p in group["params"])}
        assert rates == {self.args.geometry_learning_rate}
        return optimizer

    def follow_gradient(self, *args):
        terms, figures = compute(self, *args)
        patches = self.model.model.vision_tower.embeddings.patch_embedding.weight
        reached.append(torch.autograd.grad(terms["loss_normals"], patches, retain_graph=True)[0].any())
        return terms, figures

    monkeypatch.setattr(NormalsTrainer, "create_optimizer", keep_layer)
    monkeypatch.setattr(NormalsTrainer, "compute_extra_terms", follow_gradient)
    training.train_run(study, "all_normals", 1)
    ((layer, first),) = layers  # of the pool phase alone
    assert not torch.equal(layer.weight, first)
    assert len(reached) == study.pool.steps and all(reached)

    files = RunFiles(Path(study.output_dir), "all_normals", 1)
    phases = json.loads(files.training.read_text())["phases"]
    assert all(entry["loss_normals"] > 0 for entry in phases["pool"]["history"])
    assert not any("loss_normals" in entry for entry in phases["questions"]["history"])
    plain = set(models.build_model(study, study.rows["all"], 1, models.build_processor(study)).state_dict())
    pool = files.pool(study.pool_settings(study.rows["all_normals"]))
    assert set(load_file(files.weights)) == set(load_file(pool)) == plain


@pytest.mark.slow
def test_a_weight_that_changes_nothing_leaves_a_run_what_it_is(prepare, monkeypatch):
    """The layer takes no random numbers from the others: first weights, rooms and pairs are those without it."""
    _, study = prepare(rows={**ROWS, "all_normals": {**ALL, "normals": 1e-30}}, pairs=[], seeds=[1])
    weights, kinds, train = [], [], IDE3DTrainer.train

    def record(self, *args, **kwargs):
        kinds.append(type(self))
        return train(self, *args, **kwargs)

    monkeypatch.setattr(IDE3DTrainer, "train", record)
    for name in ("all", "all_normals"):
        training.train_run(study, name, 1)
        weights.append(load_file(RunFiles(Path(study.output_dir), name, 1).weights))
    assert kinds == [IDE3DTrainer, IDE3DTrainer, NormalsTrainer, IDE3DTrainer]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"normals": True}, "normals must be float"),
        ({"normals": 1.0, "depth": 1.0}, "normals are those of depth in metres, in the pool phase alone"),
        ({"normals": 1.0, "depth": 1.0, "pseudo": True, "in_questions": 0}, "normals are those of depth in metres"),
        ({"normals": 1.0, "teacher": 1.0, "in_questions": 0}, "give `depth` a weight too"),
    ],
)
def test_arms_whose_normals_cannot_be_trained_are_refused(write_study, entries, message):
    with pytest.raises(ValueError, match=message):
        write_study(rows={"exposure": None, "all": entries})


def test_the_recipe_adds_one_row_to_the_further_terms():
    """Runs, rooms and lessons of the other rows are good in both studies, and settings are those of kept runs."""
    study, terms = (
        read_study(REPOSITORY / f"examples/recipes/emergence_{name}.yaml") for name in ("normals", "terms")
    )
    for name in ("exposure", "all"):
        assert describe_run(study, study.rows[name]) == describe_run(terms, terms.rows[name])
        assert study.pool_settings(study.rows[name]) == terms.pool_settings(terms.rows[name])
    assert describe_lesson(study) == describe_lesson(terms) and study.seeds == terms.seeds
    assert study.scored_name("test") == terms.scored_name("test")
    changed = {**study.rows["all"].settings(), "normals": 8.0, "label": "all + normals"}
    assert study.rows["all_normals"].settings() == changed and "normals" not in study.rows["all"].settings()
    assert study.pairs == (("all_normals", "all"),)
    kept = [run for run in read_archive(REPOSITORY / "docs/study/terms", "test")["runs"] if run["row"] in study.rows]
    assert {run["row"] for run in kept} == {"exposure", "all"}
    assert all(run["training"]["settings"] == describe_run(study, study.rows[run["row"]]) for run in kept)
