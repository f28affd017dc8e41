"""Which terms there are, when they are there, and the original's objective put together from them."""

from types import SimpleNamespace

import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics, render

from trainer import IDE3DTrainingArguments
from trainer.geometry import FramePairs
from trainer.geometry_criterion import GeometryCriterion

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def scene():
    """Two videos of three frames, the third frame of the second one without geometry."""
    walk = torch.stack([camera_to_world(yaw=0.05 * k, position=(0.1 * k, 0.0, 0.0)) for k in range(3)])
    camera = intrinsics(height=HEIGHT, width=WIDTH)
    depth = torch.stack([render(camera, pose) for pose in walk])
    has_geometry = torch.tensor([[True, True, True], [True, True, False]])
    depth = torch.stack([depth, depth]) * has_geometry[..., None, None]
    return depth, camera.expand(2, 3, 3, 3), torch.stack([walk, walk]), has_geometry


def predictions(depth, pairs=None, error=0.5):
    outputs = SimpleNamespace(depth=depth + error, depth_confidence=torch.ones_like(depth), cross_view_depth=None)
    if pairs is not None:
        outputs.cross_view_depth = pairs.gather_target(depth) + 2 * error
    return outputs


class TestPairs:
    def test_only_frames_with_geometry_are_paired(self, scene):
        pairs = GeometryCriterion().select_pairs(*scene)
        found = list(zip(pairs.batch.tolist(), pairs.source.tolist(), pairs.target.tolist(), strict=True))
        assert found == [(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 1)]
        assert pairs.covisible.flatten(1).any(-1).all() and pairs.covisible.shape == (4, HEIGHT, WIDTH)

    def test_range_and_random_partners(self, scene):
        assert len(GeometryCriterion(neighbor_range=1).select_pairs(*scene)) == 3
        random = GeometryCriterion(pair_mode="random", pairs_per_frame=1).select_pairs(*scene)
        assert len(random) == 5 and (random.source != random.target).all()

    def test_pairs_without_a_common_surface_are_left_out(self, scene):
        depth, camera, walk, has_geometry = scene
        walk = walk.clone()
        walk[0, 2, :3, 3] += 50
        pairs = GeometryCriterion().select_pairs(depth, camera, walk, has_geometry)
        assert list(zip(pairs.batch.tolist(), pairs.target.tolist(), strict=True)) == [(0, 1), (1, 1)]

    def test_the_paper_pairs_a_lonely_frame_with_itself(self, scene):
        pairs = GeometryCriterion(protocol="paper").select_pairs(*scene)
        lonely = pairs.source == pairs.target
        assert list(zip(pairs.batch[lonely].tolist(), pairs.source[lonely].tolist(), strict=True)) == [(0, 2), (1, 1)]
        torch.testing.assert_close(pairs.target_from_source[lonely], torch.eye(4).expand(2, 4, 4))

    def test_no_usable_frame(self, scene):
        depth, camera, walk, has_geometry = scene
        assert len(GeometryCriterion().select_pairs(depth, camera, walk, torch.zeros_like(has_geometry))) == 0


class TestTerms:
    def test_values(self, scene):
        criterion, depth = GeometryCriterion(), scene[0]
        pairs = criterion.select_pairs(*scene)
        terms = criterion(predictions(depth, pairs), {"depth": depth, "pairs": pairs})
        # |error| as it is, and once more weighted by the confidence 1; a constant error has no gradient term.
        assert terms["loss_depth"].item() == pytest.approx(1.0, abs=1e-5)
        assert terms["loss_overlap_depth"].item() == pytest.approx(0.5, abs=1e-5)
        assert terms["loss_cross_view_depth"].item() == pytest.approx(1.0, abs=1e-5)

    def test_overlap_looks_at_the_target_frame_only_where_the_source_sees_it(self, scene):
        criterion, depth = GeometryCriterion(), scene[0]
        pairs = criterion.select_pairs(*scene)
        pairs = pairs.select(torch.tensor([0]))  # frame 0 to frame 1 of the first video
        outputs = predictions(depth, pairs, error=0.0)
        outputs.depth[0, 1][~pairs.covisible[0]] += 1.0
        outputs.depth[0, 0] += 1.0
        assert criterion(outputs, {"depth": depth, "pairs": pairs})["loss_overlap_depth"] == 0
        outputs.depth[0, 1][pairs.covisible[0]] += 1.0
        assert criterion(outputs, {"depth": depth, "pairs": pairs})["loss_overlap_depth"] > 0.5

    def test_without_targets_there_are_no_terms(self):
        assert GeometryCriterion()(SimpleNamespace(), {}) == {}

    def test_depth_without_poses(self, scene):
        depth = scene[0]
        assert set(GeometryCriterion()(predictions(depth), {"depth": depth})) == {"loss_depth"}

    def test_grounding_temperature(self):
        outputs = SimpleNamespace(region_scores=torch.tensor([[0.5, 0.1, 0.0]]))
        targets = {"region_targets": torch.tensor([[True, False, False]])}
        cold, warm = (
            GeometryCriterion(grounding_temperature=t)(outputs, targets)["loss_grounding"] for t in (0.07, 1.0)
        )
        assert 0 < cold < 0.02 < warm

    def test_half_precision_features_that_are_zero_are_no_target(self):
        teacher = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0)).half()
        teacher[1] = 0
        student = teacher.float().clone()
        student[1] = 5.0
        terms = GeometryCriterion()(SimpleNamespace(teacher_prediction=student), {"teacher_features": teacher})
        assert terms["loss_distillation"].item() == pytest.approx(0.0, abs=1e-6)

    def test_every_term_names_its_loss_and_the_loss_its_source(self, tmp_path):
        losses = GeometryCriterion().losses()
        assert set(losses) == set(IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True).loss_weights)
        assert all("@" in loss.citation for loss in losses.values())

    def test_it_has_no_weights(self):
        """A criterion inside the model must not show in its state dict."""
        assert not GeometryCriterion().state_dict()

    def test_an_unknown_protocol(self):
        with pytest.raises(ValueError, match="protocol"):
            GeometryCriterion(protocol="original")


class TestPaper:
    def test_few_measured_pixels_turn_all_terms_off(self, scene):
        depth = torch.zeros_like(scene[0])
        depth[:, :, 5, 5:20] = 1.0  # 90 pixels in the batch
        ones = torch.ones(1)
        pairs = FramePairs(*(torch.tensor([index]) for index in (0, 1, 0)), torch.eye(4)[None], ones, depth[:1, 0] > 0)
        for protocol, expected in (("paper", {"loss_depth"}), ("clean", {"loss_depth", "loss_cross_view_depth"})):
            terms = GeometryCriterion(protocol=protocol)(predictions(depth, pairs), {"depth": depth, "pairs": pairs})
            assert terms["loss_depth"] == 0
            assert expected <= set(terms) and ("loss_overlap_depth" in terms) == (protocol == "clean")
