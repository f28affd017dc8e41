"""Which terms there are, when they are there, and the original's objective put together from them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics, render

from trainer import IDE3DTrainingArguments
from trainer.geometry import FramePairs
from trainer.supervision.criterion import GeometryCriterion

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

    @pytest.mark.parametrize("protocol", ["clean", "paper"])
    def test_overlap_chooses_by_baseline_and_share_whatever_the_order(self, protocol):
        order = torch.tensor([2, 0, 3, 1])
        walk = torch.stack([camera_to_world(position=(0.3 * k, 0.0, 0.0)) for k in range(3)] + [camera_to_world(3.14)])
        camera = intrinsics(height=HEIGHT, width=WIDTH)
        depth = torch.stack([render(camera, pose) for pose in walk[:3]] + [torch.full((HEIGHT, WIDTH), 2.0)])
        criterion = GeometryCriterion(protocol=protocol, pair_mode="overlap", pairs_per_frame=1)
        arguments = (camera.expand(1, 4, 3, 3), walk[None, order], torch.ones(1, 4, dtype=torch.bool))
        pairs = criterion.select_pairs(depth[None, order], *arguments)
        found = {(int(order[i]), int(order[j])) for i, j in zip(pairs.source, pairs.target, strict=True) if i != j}
        assert found and not any(3 in pair for pair in found)  # The last frame looks the other way.
        assert all(abs(i - j) >= 1 for i, j in found)

    @pytest.mark.parametrize("protocol", ["clean", "paper"])
    def test_masks_are_brought_to_the_size_of_the_prediction(self, scene, protocol):
        criterion = GeometryCriterion(protocol=protocol)
        whole = criterion.select_pairs(*scene)
        small = criterion.select_pairs(*scene, size=(HEIGHT // 3, WIDTH // 4))
        assert torch.equal(small.covisible, whole.covisible[:, ::3, ::4])

    def test_depth_outside_the_range_is_no_measurement(self, scene):
        depth, camera, walk, has_geometry = scene
        near = depth.clone()
        near[depth > 2.5] = 0.0  # The wall is 3 m away, the ball 2 m.
        ranged, plain = GeometryCriterion(depth_range=(0.1, 2.5)), GeometryCriterion()
        pairs, expected = (c.select_pairs(d, *scene[1:]) for c, d in ((ranged, depth), (plain, near)))
        assert torch.equal(pairs.covisible, expected.covisible)
        terms = ranged(predictions(depth, pairs), {"depth": depth, "pairs": pairs, "intrinsics": camera})
        wanted = plain(predictions(depth, pairs), {"depth": near, "pairs": pairs, "intrinsics": camera})
        assert terms == wanted
        with pytest.raises(ValueError, match="NaN"):
            ranged(predictions(depth), {"depth": torch.full_like(depth, torch.nan)})
        with pytest.raises(ValueError, match="depth_range"):
            GeometryCriterion(depth_range=(2.0, 1.0))

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
        assert terms["loss_overlap_l1"].item() == pytest.approx(0.5, abs=1e-5)
        assert terms["loss_cross_view_depth"].item() == pytest.approx(1.0, abs=1e-5)

    def test_the_term_between_two_predictions_can_be_left_out(self, scene):
        depth, camera = scene[:2]
        pairs = GeometryCriterion().select_pairs(*scene)
        targets = {"depth": depth, "pairs": pairs, "intrinsics": camera}
        outputs = predictions(depth, pairs, error=0.0)
        outputs.depth = outputs.depth + 0.3 * torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]
        terms = GeometryCriterion()(outputs, targets)
        assert terms["loss_view_consistency"] > 0.05
        without = GeometryCriterion()
        without.terms = without.terms - {"loss_view_consistency"}
        assert set(without(outputs, targets)) == set(terms) - {"loss_view_consistency"}

    def test_mixed_precision_changes_no_term(self, scene):
        depth, camera = scene[:2]
        criterion = GeometryCriterion()
        pairs = criterion.select_pairs(*scene)
        targets = {"depth": depth, "pairs": pairs, "intrinsics": camera}
        outputs = predictions(depth, pairs, error=0.2)
        plain = criterion(outputs, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert criterion(outputs, targets) == plain
            assert torch.equal(criterion.select_pairs(*scene).covisible, pairs.covisible)
        assert all(term.dtype == torch.float32 for term in plain.values())

    def test_overlap_looks_at_the_target_frame_only_where_the_source_sees_it(self, scene):
        criterion, depth = GeometryCriterion(), scene[0]
        pairs = criterion.select_pairs(*scene)
        pairs = pairs.select(torch.tensor([0]))  # frame 0 to frame 1 of the first video
        outputs = predictions(depth, pairs, error=0.0)
        outputs.depth[0, 1][~pairs.covisible[0]] += 1.0
        outputs.depth[0, 0] += 1.0
        assert criterion(outputs, {"depth": depth, "pairs": pairs})["loss_overlap_l1"] == 0
        outputs.depth[0, 1][pairs.covisible[0]] += 1.0
        assert criterion(outputs, {"depth": depth, "pairs": pairs})["loss_overlap_l1"] > 0.5

    def test_without_targets_there_are_no_terms(self):
        assert GeometryCriterion()(SimpleNamespace(), {}) == {}

    def test_depth_without_poses(self, scene):
        depth = scene[0]
        assert set(GeometryCriterion()(predictions(depth), {"depth": depth})) == {"loss_depth"}

    def test_counts_are_of_what_a_term_is_a_mean_over(self, scene):
        depth, camera = scene[:2]
        least, largest = depth[depth > 0].quantile(torch.tensor([0.2, 0.7])).tolist()
        criterion = GeometryCriterion(depth_range=(least, largest))
        pairs = criterion.select_pairs(*scene)
        targets = {"depth": depth, "pairs": pairs, "intrinsics": camera}
        counts = criterion.count(targets)
        assert counts["loss_depth"] == ((depth >= least) & (depth <= largest)).sum() < (depth > 0).sum()
        assert counts["loss_view_consistency"] == pairs.weight.sum() > 0
        assert set(counts) == set(criterion(predictions(depth, pairs), targets))
        # Two videos apart, in the shares of their counts, are the two together: also where they measure unequally.
        outputs = predictions(depth, pairs)
        outputs.depth = outputs.depth + torch.tensor([0.0, 0.3]).view(2, 1, 1, 1)
        outputs.cross_view_depth = outputs.cross_view_depth + 0.3 * pairs.batch.view(-1, 1, 1)
        whole, summed = criterion(outputs, targets), dict.fromkeys(counts, 0.0)
        for video in (0, 1):
            of_video = pairs.batch == video
            part = pairs.select(of_video)
            part = replace(part, batch=torch.zeros_like(part.batch))
            alone = {"depth": depth[[video]], "pairs": part, "intrinsics": camera[[video]]}
            seen = predictions(depth[[video]])
            seen.depth, seen.cross_view_depth = outputs.depth[[video]], outputs.cross_view_depth[of_video]
            number, terms = criterion.count(alone), criterion(seen, alone)
            summed = {name: summed[name] + terms[name] * number[name] / counts[name] for name in counts}
        assert {name: float(value) for name, value in summed.items()} == pytest.approx(
            {name: float(value) for name, value in whole.items()}, rel=1e-5
        )

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
            assert expected <= set(terms) and ("loss_overlap_l1" in terms) == (protocol == "clean")
