import pytest
import torch

from trainer.losses import CrossViewDepthLoss

PROTOCOLS = ("clean", "paper")


@pytest.fixture
def pairs(scene):
    """Three pairs: prediction, target depth, covisible mask."""
    prediction, _, depth = scene
    covisible = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(1)) > 0.4
    return prediction[0], depth[0], covisible


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_zero_at_the_answer(pairs, protocol):
    _, depth, covisible = pairs
    assert CrossViewDepthLoss(protocol)(depth, depth, covisible).item() == 0.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_pair_counts_the_same_whatever_its_size(protocol):
    depth = torch.full((2, 8, 8), 3.0)
    prediction = depth + torch.tensor([0.2, 0.6])[:, None, None]
    covisible = torch.zeros(2, 8, 8, dtype=torch.bool)
    covisible[0], covisible[1, 0], covisible[1, 1, :2] = True, True, True  # 64 and 10 pixels.
    assert CrossViewDepthLoss(protocol)(prediction, depth, covisible).item() == pytest.approx(0.4)
    covisible[1, 1, 1] = False  # 9 pixels: the pair drops out.
    assert CrossViewDepthLoss(protocol)(prediction, depth, covisible).item() == pytest.approx(0.2)


def test_weights_are_averaged_over_in_clean_and_multiplied_in_paper():
    depth = torch.full((2, 8, 8), 3.0)
    prediction = depth + torch.tensor([0.2, 0.6])[:, None, None]
    covisible, weight = torch.ones(2, 8, 8, dtype=torch.bool), torch.tensor([3.0, 1.0])
    assert CrossViewDepthLoss()(prediction, depth, covisible, weight).item() == pytest.approx((0.6 + 0.6) / 4)
    paper = CrossViewDepthLoss("paper")(prediction, depth, covisible, weight)
    assert paper.item() == pytest.approx((0.6 + 0.6) / 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_gradient_reaches_the_prediction_on_used_pixels_only(pairs, protocol):
    prediction, depth, covisible = pairs
    prediction, depth = prediction.clone().requires_grad_(), depth.clone().requires_grad_()
    CrossViewDepthLoss(protocol)(prediction, depth, covisible).backward()
    used = covisible & (depth > 0)
    assert depth.grad is None
    assert prediction.grad[used].all() and not prediction.grad[~used].any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [0, 3])
def test_an_empty_mask_gives_a_zero_that_stays_in_the_graph(pairs, protocol, count):
    prediction, depth, covisible = (x[:count] for x in pairs)
    prediction = prediction.clone().requires_grad_()
    loss = CrossViewDepthLoss(protocol)(prediction, depth, torch.zeros_like(covisible))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_half_precision_is_computed_in_float32(pairs, protocol):
    prediction, depth, covisible = pairs
    loss = CrossViewDepthLoss(protocol)(prediction.bfloat16(), depth, covisible)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, CrossViewDepthLoss(protocol)(prediction.bfloat16().float(), depth, covisible))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1.0])
def test_broken_measurements_raise_inside_the_mask_only(pairs, bad):
    prediction, depth, covisible = pairs
    depth[1, 20, 20], covisible[1, 20, 20] = bad, True
    with pytest.raises(ValueError, match=r"first pairs: \[1\]"):
        CrossViewDepthLoss()(prediction, depth, covisible)
    covisible[1, 20, 20] = False
    assert CrossViewDepthLoss()(prediction, depth, covisible).isfinite()


def test_one_nan_outside_the_mask_empties_the_pair_in_paper(pairs):
    prediction, depth, covisible = pairs
    covisible[1, 20, 20] = False
    before = CrossViewDepthLoss("paper")(prediction, depth, covisible)
    alone = CrossViewDepthLoss("paper")(prediction[1:2], depth[1:2], covisible[1:2])
    depth[1, 20, 20] = torch.nan
    after = CrossViewDepthLoss("paper")(prediction, depth, covisible)
    assert after.item() == pytest.approx((before - alone / 3).item(), rel=1e-5)


def test_a_nan_prediction_stays_nan_where_it_is_used(pairs):
    prediction, depth, covisible = pairs
    prediction, covisible[0, 20, 20] = prediction.clone(), True
    prediction[0, 20, 20] = torch.nan
    assert CrossViewDepthLoss()(prediction, depth, covisible).isnan()


def test_sizes_that_differ_raise_in_clean_and_are_resized_in_paper(pairs):
    prediction, depth, covisible = pairs
    big = torch.nn.functional.interpolate(depth[None], scale_factor=2, mode="nearest")[0]
    mask = covisible.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert CrossViewDepthLoss("paper")(prediction, big, mask).item() > 0
    with pytest.raises(ValueError, match="`target_depth` must have the shape"):
        CrossViewDepthLoss()(prediction, big, covisible)


def test_wrong_input_is_named(pairs):
    prediction, depth, covisible = pairs
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        CrossViewDepthLoss()(prediction[0], depth[0], covisible[0])
    with pytest.raises(ValueError, match="`covisible` must be bool"):
        CrossViewDepthLoss()(prediction, depth, covisible.float())
    with pytest.raises(ValueError, match="weight"):
        CrossViewDepthLoss()(prediction, depth, covisible, torch.ones(2))
    for protocol in PROTOCOLS:
        with pytest.raises(ValueError, match="shape"):
            CrossViewDepthLoss(protocol)(prediction, depth[:2], covisible)


def test_citation_names_the_paper():
    assert "2604.03296" in CrossViewDepthLoss().citation
