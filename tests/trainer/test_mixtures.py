"""Mixed batches: how samples are cut into batches changes no gradient and no figure."""

import pytest
import torch
from equal_gradients import WEIGHTS, largest_difference, mixture, take_step
from training_samples import make_grounding_sample, make_mixed_batch, make_sample

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def of_one_batch(tmp_path_factory):
    return take_step(tmp_path_factory.mktemp("whole"), mixture(), per_device=4)


@pytest.mark.parametrize("per_device, accumulation", [(1, 4), (2, 2), (3, 2)], ids=["1x4", "2x2", "3+1"])
def test_accumulation_changes_no_gradient(of_one_batch, tmp_path, per_device, accumulation):
    """Language, depth, pairs, teacher and regions together; the samples share neither frames nor supervision."""
    parts = take_step(tmp_path, mixture(), per_device, accumulation)
    assert max(update.abs().max() for update in of_one_batch.values()) > 1
    assert largest_difference(of_one_batch, parts) < 1e-6


@pytest.mark.parametrize("term", WEIGHTS)
def test_each_term_on_its_own(tmp_path, term):
    weights = {name: float(name == term) for name in WEIGHTS}
    whole = take_step(tmp_path / "whole", mixture(), 4, 1, **weights)
    parts = take_step(tmp_path / "parts", mixture(), 1, 4, **weights)
    heads = {
        "distillation_weight": "teacher_projector.",
        "grounding_weight": "grounding_head.",
        "pose_weight": "pose_head.",
        "scale_weight": "scale_head.",
    }
    head = heads.get(term, "geometric_")
    # In float32; the temperature of the scores multiplies rounding errors by 14.
    assert largest_difference(whole, parts) < 4e-6
    assert max(update.abs().max() for name, update in whole.items() if name.startswith(head)) > 1e-3


@pytest.mark.parametrize("size", [1, 2, 5])
def test_figures_of_an_evaluation_do_not_depend_on_its_batches(make_trainer, size):
    samples = [*make_mixed_batch(), make_grounding_sample(3, seed=5), make_sample(2, geometry=False)]
    figures = [make_trainer([], per_device_eval_batch_size=batch).evaluate(samples) for batch in (size, len(samples))]
    names = [name for name in figures[0] if name.startswith(("eval_loss", "eval_depth", "eval_token", "eval_ground"))]
    assert len(names) == 12
    for name in names:
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-4, abs=1e-6), name


def test_samples_without_geometry_do_not_thin_the_depth_loss(make_trainer):
    measured, plain = make_sample(2), make_sample(2, geometry=False)
    trainer = make_trainer([], per_device_eval_batch_size=1)
    alone, diluted = trainer.evaluate([measured]), trainer.evaluate([measured, plain, plain])
    assert diluted["eval_loss_depth"] == pytest.approx(alone["eval_loss_depth"], rel=1e-5)


def test_errors_of_the_validator_are_those_of_its_prediction(make_trainer, collator):
    sample = make_sample(2)
    trainer = make_trainer([])
    metrics = trainer.evaluate([sample])
    batch = collator([sample])
    with torch.no_grad():
        predicted = trainer.model.predict_depth(batch["pixel_values_videos"]).depth
    truth = trainer.model.build_targets(**batch).tensors["depth"]
    expected = ((predicted - truth).abs() / truth)[truth > 0].mean()
    assert metrics["eval_depth_abs_rel"] == pytest.approx(float(expected), rel=1e-4)
