"""Terms of cameras: their targets, their heads, and what trains them in our model and in others."""

import pytest
import torch
from analytic_scenes import camera_to_world
from safetensors.torch import load_file
from supervised_hosts import attach, frames, geometry, moved
from training_samples import make_sample

from modeling_ide3d.auxiliary.alignment import METRIC
from modeling_ide3d.auxiliary.targets import MeasuredGeometry
from trainer.geometry import relative_pose
from trainer.ide3d_trainer import GEOMETRY_WEIGHTS
from trainer.supervision.camera_targets import build_camera_targets, compute_mean_depth, select_pose_pairs
from trainer.supervision.video_targets import build_grid

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = {"loss_pose": 1.0, "loss_scale": 0.5}
ALL_TERMS = frozenset(WEIGHTS)


class TestTargets:
    def test_mean_depth_is_that_of_measured_pixels(self):
        depth = torch.tensor([[[[2.0, 4.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
        assert compute_mean_depth(depth).tolist() == [3.0, 0.0]

    def test_pairs_go_both_ways_from_the_first_usable_frame(self):
        walk = torch.stack([camera_to_world(yaw=0.1 * k, position=(0.3 * k, 0.0, 0.0)) for k in range(4)])
        usable = torch.tensor([[False, True, True, True], [False, False, True, False]])
        pairs = select_pose_pairs(walk.expand(2, 4, 4, 4), usable)
        found = list(zip(pairs.batch.tolist(), pairs.source.tolist(), pairs.target.tolist(), strict=True))
        assert found == [(0, 2, 1), (0, 3, 1), (0, 1, 2), (0, 1, 3)]  # a lonely frame has no pair
        torch.testing.assert_close(pairs.target_from_source[0], relative_pose(walk[2], walk[1]))
        both = pairs.target_from_source[:2] @ pairs.target_from_source[2:]
        torch.testing.assert_close(both, torch.eye(4).expand(2, 4, 4), atol=1e-5, rtol=0)

    def test_a_video_without_depth_has_no_scale_and_no_pair(self):
        depth = torch.ones(2, 2, 3, 3)
        depth[1] = 0
        usable = torch.ones(2, 2, dtype=torch.bool)
        poses = torch.eye(4).repeat(2, 2, 1, 1)
        targets = build_camera_targets(depth, poses, usable, usable, ALL_TERMS)
        assert targets["mean_depth"].tolist() == [1.0, 0.0] and targets["pose_pairs"].batch.tolist() == [0, 0]
        assert set(build_camera_targets(depth, None, usable, usable, ALL_TERMS)) == {"mean_depth"}
        assert build_camera_targets(depth, poses, usable, usable, frozenset({"loss_depth"})) == {}


class TestAnyModel:
    def test_the_terms_fall_and_reach_the_language_model(self, host):
        samples = [make_sample(4), make_sample(4, seed=1)]
        model, inputs = host.build_model().train(), host.build_inputs(frames(*samples))
        supervision = attach(model, validator=None, teacher_size=None, loss_weights=WEIGHTS)
        optimizer = torch.optim.AdamW([*model.parameters(), *supervision.parameters()], lr=3e-3)
        history = []
        for _ in range(20):
            model(**inputs)
            terms = supervision.compute_terms(**geometry(*samples))
            optimizer.zero_grad()
            supervision.weigh(terms).backward()
            optimizer.step()
            history.append({name: term.item() for name, term in terms.items()})
        assert set(history[0]) == set(WEIGHTS)
        assert all(history[-1][name] < 0.7 * history[0][name] for name in WEIGHTS)
        assert any("language_model" in name for name in moved(model))
        assert {name.split(".")[0] for name in moved(supervision)} == {"pose_head", "scale_head"}
        pairs = 2 * (4 // host.merged_frames - 1) * 2
        assert {name: int(count) for name, (_, count) in supervision.errors.items()} == {
            "pose_degrees": pairs,
            "pose_percent": pairs,
            "scale_percent": 2,
        }

    def test_padding_and_samples_without_poses_do_not_count(self, qwen):
        short, long = make_sample(4), make_sample(8, seed=1)

        def compute(*samples, targets):
            model = qwen.build_model().train()
            supervision = attach(model, validator=None, teacher_size=None, loss_weights=WEIGHTS)
            model(**qwen.build_inputs(frames(*samples)))
            return {name: term.item() for name, term in supervision.compute_terms(**targets).items()}

        alone = compute(short, targets=geometry(short))
        beside = geometry(short, None)
        assert compute(short, long, targets=beside) == pytest.approx(alone, rel=1e-4)
        depth_alone = {**geometry(short), "depth": geometry(short, long)["depth"]}
        depth_alone |= {name: [*depth_alone[name], None] for name in ("intrinsics", "camera_to_world")}
        mixed = compute(short, long, targets=depth_alone)
        assert mixed["loss_pose"] == pytest.approx(alone["loss_pose"], rel=1e-4)
        assert mixed["loss_scale"] != pytest.approx(alone["loss_scale"], rel=1e-4)
        assert compute(short, targets=geometry(short, keys=("depth",)))["loss_pose"] == 0

    def test_depth_of_unknown_scale_has_no_cameras(self, qwen):
        samples = [make_sample(4), make_sample(4, seed=1)]
        inputs = qwen.build_inputs(frames(*samples))
        supervision = attach(qwen.build_model(), validator=None, teacher_size=None, loss_weights=WEIGHTS)
        supervision.criterion.terms = ALL_TERMS
        [place, _] = supervision.layout.find_videos(inputs["input_ids"], inputs)
        grid = build_grid(place.grid, [place.steps] * 2, torch.device("cpu"))
        poses = torch.eye(4).repeat(2, place.steps, 1, 1)
        depth = torch.ones(2, place.steps, *place.grid.image_size)
        for kinds, known in (([METRIC, METRIC], 2), ([METRIC, METRIC + 1], 1)):
            measured = MeasuredGeometry(depth, None, poses, depth_alignment=torch.tensor(kinds))
            targets = supervision.build_head_targets(grid, measured, None)
            assert int((targets["mean_depth"] > 0).sum()) == len(targets["pose_pairs"].batch.unique()) == known

    def test_heads_are_there_where_their_terms_are_weighed(self, qwen):
        for weights in (None, {"loss_pose": 0.0}, {"loss_pose": 1.0}):
            supervision = attach(qwen.build_model(), loss_weights=weights)
            assert (supervision.pose_head is not None) == bool(weights and weights["loss_pose"])
            assert supervision.scale_head is None


class TestOurModel:
    def test_a_training_logs_errors_and_keeps_the_heads(self, make_trainer, tmp_path):
        samples = [make_sample(3), make_sample(2, seed=1), make_sample(2, geometry=False, seed=2)]
        options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "pose_weight": 1.0, "scale_weight": 1.0}
        trainer = make_trainer(samples, **options)
        trainer.train()
        entry = next(entry for entry in trainer.state.log_history if "loss_pose" in entry)
        assert entry["loss_pose"] > 0 and entry["loss_scale"] > 0
        assert 0 < entry["pose_degrees"] < 180 and entry["pose_percent"] > 0 and entry["scale_percent"] > 0
        heads = load_file(tmp_path / "run" / "checkpoint-1" / GEOMETRY_WEIGHTS)
        assert {"pose_head.linear_2.bias", "scale_head.linear_2.bias"} <= set(heads)
        inference = load_file(tmp_path / "run" / "checkpoint-1" / "model.safetensors")
        assert not any("pose_head" in key or "scale_head" in key for key in inference)
        metrics = trainer.evaluate(samples)
        assert metrics["eval_loss_pose"] > 0 and metrics["eval_pose_degrees"] > 0
        resumed = make_trainer(samples, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
        expected = dict(trainer.model.named_parameters())
        assert all(torch.equal(weight, expected[name]) for name, weight in resumed.model.named_parameters())

    def test_without_a_weight_there_is_no_head(self, make_trainer):
        trainer = make_trainer([make_sample(2)], max_steps=1)
        assert trainer.model.pose_head is None and trainer.model.scale_head is None
