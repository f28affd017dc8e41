"""Depth without poses trains the depth term and no frame pairs, beside samples with all geometry and with none."""

import numpy as np
import pytest
import torch
from equal_gradients import largest_difference, take_step
from PIL import Image
from supervised_hosts import attach, frames, geometry
from training_samples import GRID, build_collator, build_model, make_sample

from trainer.supervision.criterion import GeometryCriterion
from trainer.teachers import PointMapTeacher

pytestmark = pytest.mark.usefixtures("one_thread")

PAIR_TERMS = ("loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency")
WEIGHTS = {"depth_weight": 1.0, "cross_view_weight": 1.0, "overlap_weight": 1.0, "consistency_weight": 1.0}


def without(sample, *keys):
    return {key: value for key, value in sample.items() if key not in keys}


def depth_alone(views, seed=0):
    return without(make_sample(views, seed=seed), "intrinsics", "camera_to_world")


def mixture():
    """Depth alone, all, none, depth with intrinsics."""
    return [
        depth_alone(3, seed=1),
        make_sample(3, seed=2),
        make_sample(2, geometry=False),
        without(make_sample(2, seed=3), "camera_to_world"),
    ]


def compute_terms(collator, *samples, protocol="clean"):
    model = build_model(validator={"protocol": protocol}).train()
    model.criterion = GeometryCriterion(protocol=protocol)
    batch = collator(list(samples))
    outputs = model(**batch)
    counts = model.criterion.count(model.build_targets(**batch).tensors)
    return {name: outputs[name].detach() for name in ("loss_depth", *PAIR_TERMS)}, counts


def test_keys_of_the_batch(collator):
    alone = collator([depth_alone(2), make_sample(1, geometry=False)])
    assert alone["has_geometry"].tolist() == [True, False]
    assert not {"intrinsics", "camera_to_world", "has_poses"} & alone.keys()
    batch, whole = collator(mixture()), collator([make_sample(3, seed=2)])
    assert batch["has_geometry"].tolist() == [True, True, False, True]
    assert batch["has_poses"].tolist() == [False, True, False, False]
    for key in ("depth", "intrinsics", "camera_to_world"):
        assert torch.equal(batch[key][1], whole[key][0])
    assert "has_poses" not in collator([make_sample(2), make_sample(1, geometry=False)])


def test_depth_of_frames_that_exif_turns_is_refused(collator):
    sample = depth_alone(2)
    pictures = [Image.fromarray(frame) for frame in np.asarray(sample["frames"])]
    pictures[1].getexif()[0x0112] = 3
    with pytest.raises(ValueError, match=r"EXIF orientation turns the frames \[1\] .*'depth'"):
        collator([{**sample, "frames": pictures}])


def test_depth_alone_trains_the_depth_term_as_it_does_beside_poses(collator):
    whole, _ = compute_terms(collator, make_sample(3))
    for sample in (depth_alone(3), without(make_sample(3), "camera_to_world")):
        terms, counts = compute_terms(collator, sample)
        assert torch.equal(terms["loss_depth"], whole["loss_depth"]) and set(counts) == {"loss_depth"}
        assert all(terms[name] == 0 < whole[name] for name in PAIR_TERMS)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2)])
def test_a_mixed_batch_has_the_terms_of_its_samples(collator, order):
    samples = [mixture()[index] for index in order]
    terms, counts = compute_terms(collator, *samples)
    each = [compute_terms(collator, sample) for sample in samples]
    for name, term in terms.items():
        total = sum(own[name] * number.get(name, 0) for own, number in each)
        assert counts[name] == sum(number.get(name, 0) for _, number in each) > 0
        torch.testing.assert_close(term, total / counts[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("per_device, accumulation", [(1, 4), (2, 2)])
def test_how_a_step_is_cut_changes_no_gradient(tmp_path, per_device, accumulation):
    whole = take_step(tmp_path / "whole", mixture(), 4, **WEIGHTS)
    parts = take_step(tmp_path / "parts", mixture(), per_device, accumulation, **WEIGHTS)
    assert largest_difference(whole, parts) < 4e-6


def test_paper_has_no_pairs_of_them_either():
    collator = build_collator(protocol="paper")
    terms, counts = compute_terms(collator, depth_alone(3, seed=1), make_sample(3, seed=2), protocol="paper")
    alone, expected = compute_terms(collator, make_sample(3, seed=2), protocol="paper")
    assert counts["loss_overlap_l1"] == expected["loss_overlap_l1"] > 0
    torch.testing.assert_close(terms["loss_overlap_l1"], alone["loss_overlap_l1"])
    assert compute_terms(collator, depth_alone(3), protocol="paper")[1].keys() == {"loss_depth"}


@pytest.mark.parametrize(
    "missing", [("depth",), ("intrinsics",), ("depth", "intrinsics"), ("depth", "camera_to_world")], ids="-".join
)
def test_cameras_without_what_they_need_are_refused(collator, missing):
    given = [key for key in ("depth", "intrinsics", "camera_to_world") if key not in missing]
    with pytest.raises(ValueError, match=f"poses need both: .* got only \\{str(given)[:-1]}"):
        collator([without(make_sample(2), *missing)])


def test_each_part_that_is_given_has_one_entry_a_frame(collator):
    with pytest.raises(ValueError, match="Got 2 frames but 3 depth maps"):
        collator([{**depth_alone(2), "depth": make_sample(3)["depth"]}])
    with pytest.raises(ValueError, match="has_poses must have shape"):
        build = collator(mixture())
        model = build_model()
        model.criterion = GeometryCriterion()
        model(**{**build, "has_poses": torch.ones(3, dtype=torch.bool)})


@pytest.mark.parametrize("first", [0, 1])
def test_another_model_pairs_no_frames_of_a_sample_without_poses(qwen, first):
    samples = [make_sample(4, seed=1), make_sample(4, seed=2)]
    model, inputs = qwen.build_model().train(), qwen.build_inputs(frames(*samples))
    supervision = attach(model, teacher_size=None, loss_weights=dict.fromkeys(("loss_depth", *PAIR_TERMS), 1.0))
    targets = geometry(*samples)
    for key in ("intrinsics", "camera_to_world"):
        targets[key][first] = None
    model(**inputs)
    mixed = supervision.compute_terms(**targets)
    model(**inputs)
    both = supervision.compute_terms(**geometry(*samples))
    model(**inputs)
    single = supervision.compute_terms(**geometry(*(None if i == first else s for i, s in enumerate(samples))))
    torch.testing.assert_close(mixed["loss_depth"], both["loss_depth"])
    for name in PAIR_TERMS:
        torch.testing.assert_close(mixed[name], single[name])
        assert mixed[name] > 0 and mixed[name] != both[name]


def test_a_teacher_of_points_needs_the_cameras():
    samples = [depth_alone(2), without(make_sample(2), "camera_to_world"), make_sample(2)]
    shape = (2, *GRID, PointMapTeacher().feature_size)
    for camera, known in (("first", [False, False, True]), ("own", [False, True, True])):
        collator = build_collator(teacher=PointMapTeacher(camera=camera))
        for sample, is_known in zip(samples, known, strict=True):
            assert ("teacher_features" in collator([sample])) == is_known
        assert np.shape(collator(samples)["teacher_features"]) == (3, *shape)
