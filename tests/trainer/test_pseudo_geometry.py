"""Pseudo geometry of rooms: truth of unknown scale and shift, with noise and holes, trains as the truth does."""

import numpy as np
import pytest
import torch
from equal_gradients import largest_difference, take_step
from supervised_hosts import attach, frames, geometry
from training_samples import build_collator, build_model, chat, make_sample

from modeling_ide3d.auxiliary import alignment
from modeling_ide3d.auxiliary.alignment import align_targets
from processing import PosedVideo
from processing.rooms import load_rooms
from trainer.geometry import find_disagreements
from trainer.supervision.criterion import GeometryCriterion
from trainer.teachers import PointMapTeacher
from trainer.teachers.pseudo_rules import ALIGNMENTS, ConfidenceRule

pytestmark = pytest.mark.usefixtures("one_thread")

TERMS = ("loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency")
WEIGHTS = {"depth_weight": 1.0, "cross_view_weight": 1.0, "overlap_weight": 1.0, "consistency_weight": 1.0}
KEEP_ALL = ConfidenceRule(drop_share=0.0)


@pytest.fixture(scope="module")
def room():
    """A sample of a rendered room: 4 frames of 64 x 64 px with exact depth and poses."""
    video = PosedVideo.from_room(load_rooms("train", 1, image_size=64, num_frames=4)[0])
    keys = ("frames", "depth", "intrinsics", "camera_to_world")
    return {"messages": chat(), **{key: getattr(video, key) for key in keys}}


def pseudo(sample, *, factor=1.0, shift=0.0, noise=0.0, holes=0.0, alignment=None, poses=True, inverse=False, seed=0):
    """The geometry of a sample as a network would give it: c depth + d, with relative noise and holes."""
    rng = np.random.default_rng(seed)
    truth = np.asarray(sample["depth"], np.float32)
    values = 1 / np.where(truth > 0, truth, np.inf) if inverse else truth
    wrong = (values * np.reshape(factor, (-1, 1, 1)) + np.reshape(shift, (-1, 1, 1))) * rng.normal(
        1, noise, truth.shape
    )
    wrong[(truth == 0) | (rng.random(truth.shape) < holes)] = 0
    changed = {**sample, "depth": wrong.astype(np.float32), "geometry_kind": "pseudo", "depth_alignment": alignment}
    if not poses:
        return {key: value for key, value in changed.items() if key not in ("intrinsics", "camera_to_world")}
    moved = np.array(sample["camera_to_world"])
    moved[:, :3, 3] *= factor
    return {**changed, "camera_to_world": moved}


def gradients(collator, sample, terms=TERMS):
    """Gradient of each term in the depth decoder and the vision tower, as one vector a term."""
    model = build_model().train()
    model.criterion = GeometryCriterion()
    outputs, found = model(**collator([sample])), {}
    parts = [*model.geometric_validator.parameters(), *model.model.vision_tower.parameters()]
    parts = [parameter for parameter in parts if parameter.requires_grad]
    for name in terms:
        grads = torch.autograd.grad(outputs[name], parts, retain_graph=True, allow_unused=True)
        found[name] = torch.cat([grad.flatten() for grad in grads if grad is not None])
    return found


def cosine(one, two):
    return torch.nn.functional.cosine_similarity(one, two, dim=0).item()


class TestGradientsOfTheTruth:
    """The factor is 1: nothing of the unknown scale and shift is in a gradient."""

    @pytest.mark.parametrize("factor", [0.013, 0.4, 7.0, 350.0])
    def test_of_a_video_of_unknown_scale(self, collator, room, factor):
        truth = gradients(collator, pseudo(room))
        found = gradients(collator, pseudo(room, factor=factor))
        for name in TERMS:
            # A pixel at the threshold of covisibility may flip by rounding.
            torch.testing.assert_close(found[name], truth[name], rtol=1e-3, atol=5e-3 * truth[name].abs().max())

    def test_of_frames_of_unknown_scale_and_shift(self, collator, room):
        truth = gradients(collator, pseudo(room, poses=False), TERMS[:1])["loss_depth"]
        wrong = pseudo(room, poses=False, factor=[0.2, 1.0, 3.0, 40.0], shift=[0.3, 0.0, 2.0, -9.0])
        assert (wrong["depth"] >= 0).all()
        found = gradients(collator, wrong, TERMS[:1])["loss_depth"]
        torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-3 * truth.abs().max())

    def test_of_frames_of_inverse_depth(self, collator, room):
        options = {"poses": False, "alignment": "inverse", "inverse": True}
        truth = gradients(collator, pseudo(room, **options), TERMS[:1])["loss_depth"]
        found = gradients(collator, pseudo(room, factor=[0.2, 1, 3, 9], shift=[0.1, 1, 0, 4], **options), TERMS[:1])
        torch.testing.assert_close(found["loss_depth"], truth, rtol=1e-3, atol=1e-3 * truth.abs().max())

    def test_with_noise_and_holes(self, collator, room):
        """Noise of 5 % and a third of holes turn no gradient away from that of the truth."""
        truth = gradients(collator, pseudo(room))
        for seed in (0, 1):
            found = gradients(collator, pseudo(room, factor=0.3, noise=0.05, holes=0.3, seed=seed))
            for name in TERMS:
                assert cosine(found[name], truth[name]) > 0.95, name
                assert 0.8 < found[name].norm() / truth[name].norm() < 1.5, name

    def test_marked_metric_they_are_those_of_measured_depth(self, collator, room):
        measured = gradients(collator, room)
        found = gradients(collator, pseudo(room, alignment="metric"))
        for name in TERMS:
            # 0.1 % of the pixels are left out at borders, where views seem to contradict each other.
            torch.testing.assert_close(found[name], measured[name], rtol=1e-3, atol=1e-2 * measured[name].abs().max())
        scaled = gradients(collator, pseudo(room, factor=0.5, alignment="metric"))
        assert cosine(scaled["loss_depth"], measured["loss_depth"]) < 0.99


class Outputs:
    """Predictions as the criterion reads them."""

    def __init__(self, depth):
        self.depth = self.cross_view_depth = depth
        self.depth_confidence = torch.ones_like(depth)


class TestAlignment:
    depth = torch.tensor(np.random.default_rng(0).uniform(1, 5, (1, 2, 16, 16)), dtype=torch.float32)

    def align(self, kind, prediction, depth):
        return align_targets(prediction, {"depth": depth, "depth_alignment": torch.tensor([kind])})["depth"]

    def test_codes_are_those_of_the_names(self):
        codes = [getattr(alignment, name.upper()) for name in ALIGNMENTS]
        assert codes == list(range(len(ALIGNMENTS)))

    def test_a_prediction_with_the_median_of_the_truth_is_compared_with_the_truth(self):
        """Then the loss and its gradient are those of measured depth."""
        noise = torch.tensor(np.random.default_rng(1).uniform(0.8, 1.25, self.depth.shape), dtype=torch.float32)
        prediction = self.depth * noise
        prediction = prediction / (prediction / self.depth).flatten().sort().values[255]
        prediction.requires_grad_(True)
        criterion, found = GeometryCriterion(), []
        for targets in ({}, {"depth_alignment": torch.tensor([alignment.SCALE])}):
            given = self.depth * 17 if targets else self.depth
            loss = criterion(Outputs(prediction), {"depth": given, **targets})["loss_depth"]
            found.append((loss, torch.autograd.grad(loss, prediction)[0]))
        torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-6)
        assert cosine(found[1][1].flatten(), found[0][1].flatten()) > 0.999
        torch.testing.assert_close(found[1][1].norm(), found[0][1].norm(), rtol=1e-2, atol=0)

    def test_by_hand(self):
        """Depth 1, 2, 3, 6 (median 2, deviation 1.5) for predictions 10, 20, 30, 60 (median 20, deviation 15)."""
        given = torch.tensor([1.0, 2, 3, 6]).view(1, 1, 2, 2)
        prediction = torch.tensor([20.0, 10, 60, 30]).view(1, 1, 2, 2)
        aligned = self.align(alignment.AFFINE, prediction, given)
        assert aligned.flatten().tolist() == [10, 20, 30, 60]
        # Ratios 20, 5, 20, 5: the lower median is 5.
        assert self.align(alignment.SCALE, prediction, given).flatten().tolist() == [5, 10, 15, 30]
        inverse = self.align(alignment.INVERSE, 1 / prediction, given)
        torch.testing.assert_close(inverse.flatten(), 1 / torch.tensor([10.0, 20, 30, 60]))

    def test_pixels_without_a_value_stay_so_and_what_is_broken_stays_broken(self):
        given = self.depth.clone()
        given[0, 0, :3], given[0, 1] = 0, 0
        for kind in (alignment.SCALE, alignment.AFFINE, alignment.INVERSE):
            aligned = self.align(kind, self.depth, given)
            assert torch.equal(aligned > 0, given > 0) and torch.isfinite(aligned).all()
            given[0, 0, 5, 5] = torch.nan
            assert self.align(kind, self.depth, given)[0, 0, 5, 5].isnan()
            given[0, 0, 5, 5] = 1
        assert not self.align(alignment.SCALE, self.depth, torch.zeros_like(given)).any()

    def test_a_flat_frame_asks_for_a_flat_prediction(self):
        aligned = self.align(alignment.AFFINE, self.depth, torch.full_like(self.depth, 3.0))
        for frame, predicted in zip(aligned[0], self.depth[0], strict=True):
            torch.testing.assert_close(frame, predicted.flatten().median().expand_as(frame))

    def test_outliers_stay_near_the_prediction(self):
        given = self.depth.clone()
        given[0, 0, 0, 0] = 4000.0
        aligned = self.align(alignment.AFFINE, self.depth, given)
        assert aligned[0, 0].max() <= 2 * self.depth[0, 0].max() and aligned.min() >= self.depth.min() / 2


class TestBatch:
    def test_kinds_are_mixed(self, collator, room):
        samples = [room, pseudo(room, factor=3.0), pseudo(room, poses=False), make_sample(2, geometry=False)]
        batch = collator(samples)
        assert batch["depth_alignment"].tolist() == [ALIGNMENTS.index(k) for k in ("metric", "scale", "affine")] + [0]
        assert batch["has_poses"].tolist() == [True, True, False, False]
        assert "depth_alignment" not in collator([room])
        for kind in (1, 2):
            values = batch["depth"][kind][batch["depth"][kind] > 0]
            assert values.median() == pytest.approx(2.0, rel=0.15)

    def test_terms_are_the_means_of_their_samples(self, room):
        collator = build_collator()
        samples = [room, pseudo(room, factor=3.0, noise=0.05), pseudo(room, poses=False, shift=0.5)]

        def terms(*chosen):
            model = build_model().train()
            model.criterion = GeometryCriterion()
            batch = collator(list(chosen))
            outputs = model(**batch)
            return outputs, model.criterion.count(model.build_targets(**batch).tensors)

        whole, counts = terms(*samples)
        each = [terms(sample) for sample in samples]
        for name in TERMS[:3]:
            total = sum(own[name] * number.get(name, 0) for own, number in each)
            torch.testing.assert_close(whole[name], total / counts[name], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("per_device, accumulation", [(1, 4), (2, 2)])
    def test_how_a_step_is_cut_changes_no_gradient(self, tmp_path, per_device, accumulation):
        scaled, shifted = pseudo(make_sample(3, seed=1), factor=3.0), pseudo(make_sample(2, seed=2), poses=False)
        samples = [make_sample(3), scaled, shifted, make_sample(2, geometry=False)]
        whole = take_step(tmp_path / "whole", samples, 4, **WEIGHTS)
        parts = take_step(tmp_path / "parts", samples, per_device, accumulation, **WEIGHTS)
        assert largest_difference(whole, parts) < 4e-6

    def test_a_range_of_depth_is_one_of_metres(self, collator, room):
        """Pseudo depth of unknown unit is not cut by it, and counts stay those of the terms."""
        criterion = GeometryCriterion(depth_range=(0.1, 1.5))
        targets = {"depth": torch.full((2, 1, 16, 16), 2.0), "depth_alignment": torch.tensor([0, 1])}
        assert criterion.count(targets)["loss_depth"] == 256

    def test_points_in_metres_are_no_features_of_it(self, room):
        collator = build_collator(teacher=PointMapTeacher(camera="own"))
        assert "teacher_features" not in collator([pseudo(room)])
        assert "teacher_features" in collator([pseudo(room, alignment="metric")])


class TestConfidence:
    def test_least_sure_pixels_are_left_out(self, room):
        sure = np.random.default_rng(0).random(room["depth"].shape)
        sure[:, :8] = 0
        for rule, least in ((ConfidenceRule(0.25), None), (ConfidenceRule(0.0, 0.5), 0.5)):
            kept = rule.mask(np.asarray(room["depth"], np.float32), sure) > 0
            assert not kept[:, :8].any()
            expected = least or np.quantile(sure[0, 8:], 0.25, method="lower")
            assert sure[0][kept[0]].min() >= expected > sure[0, 8:][~kept[0, 8:]].max()

    def test_equal_confidence_leaves_nothing_out(self, room):
        depth = np.asarray(room["depth"], np.float32)
        assert np.array_equal(ConfidenceRule(0.9).mask(depth, np.ones_like(depth)), depth)

    def test_reaches_the_batch(self, room):
        sure = np.ones(room["depth"].shape, bool)
        sure[:, :, :32] = False
        batch = build_collator()([{**pseudo(room, poses=False), "depth_confidence": sure}])
        assert not (batch["depth"][..., :36] > 0).any() and (batch["depth"][..., 36:] > 0).all()
        sample, sure = pseudo(room, poses=False), np.random.default_rng(0).random(room["depth"].shape)
        shares = [
            (build_collator(confidence_rule=rule)([{**sample, "depth_confidence": sure}])["depth"] > 0).float().mean()
            for rule in (KEEP_ALL, None, ConfidenceRule(0.5))
        ]
        assert shares[0] == 1 and 0.85 < shares[1] < 0.95 and 0.4 < shares[2] < 0.6


class TestDisagreement:
    def test_views_of_a_room_agree(self, room):
        """Nearly: a point within a pixel of a border may lie on either side of it."""
        for factor in (1.0, 0.01):
            poses = torch.tensor(room["camera_to_world"])
            poses[:, :3, 3] *= factor
            depth, cameras = torch.tensor(room["depth"]) * factor, torch.tensor(room["intrinsics"])
            assert find_disagreements(depth, cameras, poses).float().mean() < 0.002

    def test_what_other_views_look_through_is_found(self, room):
        depth = torch.tensor(room["depth"])
        cameras, poses = torch.tensor(room["intrinsics"]), torch.tensor(room["camera_to_world"])
        depth[1, 20:40, 20:40] *= 0.5
        found = find_disagreements(depth, cameras, poses)
        assert found[1, 20:40, 20:40].float().mean() > 0.8
        outside = found[1].clone()
        outside[20:40, 20:40] = False
        assert outside.float().mean() < 0.01

    def test_it_is_left_out_of_a_batch(self, collator, room):
        wrong = pseudo(room, factor=4.0)
        wrong["depth"][1, 20:40, 20:40] *= 0.5
        depth = collator([wrong])["depth"][0]
        assert (depth[1, 24:44, 24:44] > 0).float().mean() < 0.3 < 0.9 < (depth[0] > 0).float().mean()
        assert (collator([pseudo(room, factor=4.0)])["depth"] > 0).float().mean() > 0.99


class TestOtherModels:
    WEIGHTS = dict.fromkeys(TERMS, 1.0)

    def terms(self, qwen, *given, alignments=None):
        samples = [sample for sample, _ in given]
        model, inputs = qwen.build_model().train(), qwen.build_inputs(frames(*samples))
        supervision = attach(model, teacher_size=None, loss_weights=self.WEIGHTS)
        targets = geometry(*(target for _, target in given))
        model(**inputs)
        return supervision.compute_terms(**targets, depth_alignment=alignments)

    def test_scale_is_nothing_to_them_either(self, qwen):
        sample = make_sample(4, seed=1)
        truth = self.terms(qwen, (sample, pseudo(sample)), alignments=["scale"])
        found = self.terms(qwen, (sample, pseudo(sample, factor=40.0)), alignments=["scale"])
        for name in TERMS:
            torch.testing.assert_close(found[name], truth[name], rtol=1e-3, atol=1e-4)
            assert truth[name] > 0

    def test_measured_and_pseudo_are_mixed(self, qwen):
        one, two = make_sample(4, seed=1), make_sample(4, seed=2)
        measured = self.terms(qwen, (one, one), (two, two))
        mixed = self.terms(qwen, (one, one), (two, pseudo(two, factor=9.0)), alignments=[None, "scale"])
        same = self.terms(qwen, (one, one), (two, pseudo(two)), alignments=[None, "metric"])
        torch.testing.assert_close(same["loss_depth"], measured["loss_depth"])
        assert mixed["loss_depth"] != measured["loss_depth"]

    def test_refusal(self, qwen):
        sample = make_sample(4, seed=1)
        for alignments, told in ((["log"], "depth_alignment must be one of"), ([], "one entry a sample, 1, got 0"),
                                 (["affine"], "Sample 0: .* leaves the shift of each frame open")):  # fmt: skip
            with pytest.raises(ValueError, match=told):
                self.terms(qwen, (sample, sample), alignments=alignments)
        with pytest.raises(TypeError, match="depth_alignment must be a list"):
            self.terms(qwen, (sample, sample), alignments="scale")


class TestRefusal:
    @pytest.mark.parametrize(
        "change, told",
        [
            ({"geometry_kind": "guessed"}, "geometry_kind must be one of"),
            ({"geometry_kind": None}, r"\['depth_alignment'\] belong to pseudo geometry"),
            ({"depth_alignment": "log"}, "depth_alignment must be one of"),
            ({"depth_alignment": "affine"}, "leaves the shift of each frame open, which poses do not allow"),
            ({"depth_confidence": np.ones((4, 8, 8))}, "`depth_confidence` must have the shape of `depth`"),
            ({"depth_confidence": -np.ones((4, 64, 64))}, "`depth_confidence` holds NaN, Inf or negative"),
            ({"depth": None, "intrinsics": None, "camera_to_world": None}, "needs `depth`"),
            ({"depth": np.full((4, 64, 64), np.nan)}, "`depth` holds 16384 values that are NaN"),
        ],
    )
    def test_of_what_does_not_fit(self, collator, room, change, told):
        with pytest.raises(ValueError, match=told):
            collator([{**pseudo(room, alignment="scale"), **change}])

    def test_of_the_paper_s_rules(self, room):
        with pytest.raises(ValueError, match='needs protocol "clean"'):
            build_collator(protocol="paper")([pseudo(room)])

    def test_of_rules_that_leave_nothing(self):
        for change in ({"drop_share": 1.0}, {"drop_share": -0.1}, {"min_confidence": -1}, {"drop_share": np.nan}):
            with pytest.raises(ValueError, match=next(iter(change))):
                ConfidenceRule(**change)
        with pytest.raises(TypeError, match="confidence_rule must be"):
            build_collator(confidence_rule=0.5)
