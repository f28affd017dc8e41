import math

import pytest
import torch

from trainer.losses import DepthRegressionLoss

PROTOCOLS = ("clean", "paper")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_zero_at_the_answer(scene, protocol):
    _, _, depth = scene
    terms = DepthRegressionLoss(protocol=protocol).compute_terms(depth, torch.ones_like(depth), depth)
    assert [term.item() for term in terms] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hand_values(protocol):
    """An offset of 0.5 m everywhere: no differences between neighbours, confidence 2."""
    depth = torch.full((1, 1, 16, 16), 2.0)
    terms = DepthRegressionLoss(protocol=protocol).compute_terms(depth + 0.5, torch.full_like(depth, 2.0), depth)
    assert terms.regression.item() == pytest.approx(0.5)
    assert terms.confidence.item() == pytest.approx(0.5 * 2 - 0.2 * math.log(2))
    assert terms.gradient.item() == 0.0
    loss = DepthRegressionLoss(gamma=3.0, alpha=0.0, protocol=protocol)
    total = loss(depth + 0.5, torch.full_like(depth, 2.0), depth)
    assert total.item() == pytest.approx(0.5 + 3 * 0.5 * 2)


def test_gradient_term_of_a_ramp():
    """An error of 0.1 m more a column: at stride s the horizontal differences are 0.1 s, divided by the pixels."""
    depth = torch.full((1, 1, 16, 16), 2.0)
    prediction = depth + 0.1 * torch.arange(16)
    term = DepthRegressionLoss().compute_terms(prediction, torch.ones_like(depth), depth).gradient
    expected = sum(0.1 * s * (16 // s - 1) / (16 // s) for s in (1, 2, 4, 8)) / 4
    assert term.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_gradient_reaches_both_predictions_and_nothing_else(scene, protocol):
    prediction, confidence, depth = (x.requires_grad_() for x in scene)
    DepthRegressionLoss(protocol=protocol)(prediction, confidence, depth).backward()
    assert prediction.grad.abs().sum() > 0 and confidence.grad.abs().sum() > 0
    assert depth.grad is None
    holes = depth == 0
    assert not prediction.grad[holes].any() and not confidence.grad[holes].any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_too_few_pixels_give_a_zero_that_stays_in_the_graph(scene, protocol):
    prediction, confidence, depth = scene
    mask = torch.zeros_like(depth, dtype=torch.bool)
    mask[0, 0, 10, :20] = mask[1, 1, 10:13, :26] = True
    loss = DepthRegressionLoss(protocol=protocol)
    assert loss.count_valid_pixels(depth, mask) == 98
    prediction.requires_grad_(), confidence.requires_grad_()
    value = loss(prediction, confidence, depth, mask)
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(depth))
    assert torch.equal(confidence.grad, torch.zeros_like(depth))
    mask[0, 0, 11, :2] = True
    assert loss(prediction, confidence, depth, mask).item() > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_half_precision_is_computed_in_float32(scene, protocol):
    prediction, confidence, depth = scene
    half = [x.bfloat16() for x in (prediction, confidence)]
    loss = DepthRegressionLoss(protocol=protocol)(*half, depth)
    reference = DepthRegressionLoss(protocol=protocol)(*(x.float() for x in half), depth)
    assert loss.dtype == torch.float32 and torch.equal(loss, reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(DepthRegressionLoss(protocol=protocol)(*half, depth), reference)


def test_the_largest_residuals_are_left_out(scene):
    prediction, confidence, depth = scene
    spoiled = prediction.clone()
    spoiled[0, 0, 12, 10:20] = 60.0  # Ten of 4,488 pixels.
    plain = DepthRegressionLoss().compute_terms(prediction, confidence, depth)
    robust = DepthRegressionLoss().compute_terms(spoiled, confidence, depth)
    assert robust.regression.item() == pytest.approx(plain.regression.item(), rel=0.02)
    everything = DepthRegressionLoss(valid_range=1.0).compute_terms(spoiled, confidence, depth)
    assert everything.regression.item() > 1.5 * robust.regression.item()
    all_of_it = (prediction - depth).abs()[depth > 0].mean()
    whole = DepthRegressionLoss(valid_range=1.0).compute_terms(prediction, confidence, depth)
    assert whole.regression.item() == pytest.approx(all_of_it.item(), rel=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_non_finite_predictions_show_in_the_clean_loss(scene, bad):
    prediction, confidence, depth = scene
    prediction[0, 1, 20, 20] = bad
    terms = DepthRegressionLoss().compute_terms(prediction, confidence, depth)
    assert not any(term.isfinite() for term in terms)
    paper = DepthRegressionLoss(protocol="paper").compute_terms(prediction, confidence, depth)
    assert paper.regression.isfinite() and paper.confidence.isfinite()
    assert paper.gradient.isnan() == (bad != bad)  # Inf between valid pixels is clamped to 100.


@pytest.mark.parametrize(("bad", "name"), [(torch.nan, "NaN"), (torch.inf, "Inf"), (-1.0, "negative")])
def test_broken_measurements_raise_in_clean_and_pass_in_paper(scene, bad, name):
    prediction, confidence, depth = scene
    depth[1, 2, 20, 20] = bad
    with pytest.raises(ValueError, match=rf"1 {name} values inside the mask, first \(sample, frame\): \[\[1, 2\]\]"):
        DepthRegressionLoss()(prediction, confidence, depth)
    assert DepthRegressionLoss(protocol="paper")(prediction, confidence, depth).isfinite()
    mask = torch.isfinite(depth) & (depth > 0)
    masked = DepthRegressionLoss()(prediction, confidence, depth, mask)
    depth[1, 2, 20, 20] = 0.0
    assert torch.equal(masked, DepthRegressionLoss()(prediction, confidence, depth, mask))


def test_clean_never_takes_a_missing_measurement_for_a_depth_of_zero(scene):
    prediction, confidence, depth = scene
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    assert torch.equal(
        DepthRegressionLoss()(prediction, confidence, depth, everywhere),
        DepthRegressionLoss()(prediction, confidence, depth),
    )
    paper = DepthRegressionLoss(protocol="paper")
    counted = paper.compute_terms(prediction, confidence, depth, everywhere).regression
    assert counted != paper.compute_terms(prediction, confidence, depth).regression


def test_both_protocols_agree_on_good_data(scene):
    assert torch.equal(DepthRegressionLoss()(*scene), DepthRegressionLoss(protocol="paper")(*scene))


def test_inputs_are_left_alone(scene):
    copies = [x.clone() for x in scene]
    DepthRegressionLoss(protocol="paper")(*scene)
    assert all(torch.equal(a, b) for a, b in zip(scene, copies, strict=True))


def test_wrong_shapes_and_options_are_named(scene):
    prediction, confidence, depth = scene
    with pytest.raises(ValueError, match=r"\(B, V, H, W\)"):
        DepthRegressionLoss()(prediction[0], confidence[0], depth[0])
    with pytest.raises(ValueError, match="`depth` must have the shape of `predicted_depth`"):
        DepthRegressionLoss()(prediction, confidence, depth[..., :-1])
    with pytest.raises(ValueError, match="`depth_mask` must be bool"):
        DepthRegressionLoss()(prediction, confidence, depth, depth)
    with pytest.raises(ValueError, match="protocol"):
        DepthRegressionLoss(protocol="original")
    with pytest.raises(ValueError, match="num_scales"):
        DepthRegressionLoss(num_scales=0)


def test_citation_names_the_paper():
    assert "2604.03296" in DepthRegressionLoss().citation
