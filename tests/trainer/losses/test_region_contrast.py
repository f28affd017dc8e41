import math

import pytest
import torch

from trainer.losses import RegionContrastLoss


def targets_of(*rows, width=5):
    targets = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, columns in enumerate(rows):
        targets[row, list(columns)] = True
    return targets


def test_hand_values():
    scores = torch.zeros(1, 5)
    assert RegionContrastLoss()(scores, targets_of([2])).item() == pytest.approx(math.log(5))
    assert RegionContrastLoss()(scores, targets_of([0, 1, 2, 3])).item() == pytest.approx(math.log(5 / 4))
    assert RegionContrastLoss()(scores, targets_of(range(5))).item() == 0.0
    scores = torch.tensor([[0.2, -0.1, 0.0, 0.0, 0.0]])
    expected = -math.log(math.exp(0.4) / (math.exp(0.4) + math.exp(-0.2) + 3))
    assert RegionContrastLoss(temperature=0.5)(scores, targets_of([0])).item() == pytest.approx(expected, rel=1e-5)


def test_near_zero_at_the_answer():
    scores = torch.tensor([[-1.0, 1.0, -1.0, -1.0, -1.0]])
    assert RegionContrastLoss()(scores, targets_of([1])).item() < 1e-10


def test_padding_changes_neither_value_nor_gradient():
    scores = torch.randn(2, 4, requires_grad=True)
    targets = targets_of([0, 2], [3], width=4)
    loss = RegionContrastLoss()(scores, targets)
    (gradient,) = torch.autograd.grad(loss, scores)
    padding = torch.full((2, 2), -torch.inf)
    wide = torch.cat((scores.detach()[:, :3], padding, scores.detach()[:, 3:]), 1).requires_grad_()
    wide_targets = torch.cat((targets[:, :3], torch.zeros(2, 2, dtype=torch.bool), targets[:, 3:]), 1)
    wide_loss = RegionContrastLoss()(wide, wide_targets)
    wide_loss.backward()
    torch.testing.assert_close(wide_loss, loss)
    torch.testing.assert_close(wide.grad[:, [0, 1, 2, 5]], gradient)
    assert not wide.grad[:, 3:5].any()


def test_rows_without_a_truth_contribute_nothing():
    scores = torch.randn(3, 5, requires_grad=True)
    loss = RegionContrastLoss()(scores, targets_of([1], [], [4]))
    loss.backward()
    expected = RegionContrastLoss()(scores.detach()[[0, 2]], targets_of([1], [4]))
    assert torch.equal(loss.detach(), expected) and not scores.grad[1].any()


def test_no_truth_at_all_gives_a_zero_that_stays_in_the_graph():
    scores = torch.randn(2, 5)
    scores[:, 3] = -torch.inf
    scores.requires_grad_()
    loss = RegionContrastLoss()(scores, targets_of([], []))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(scores.grad, torch.zeros(2, 5))


def test_no_overflow_at_tiny_temperatures():
    scores = torch.tensor([[1.0, -1.0, 0.5, 0.0, 0.0]])
    assert RegionContrastLoss(temperature=1e-4)(scores, targets_of([0])).item() == 0.0
    assert RegionContrastLoss(temperature=1e-4)(scores, targets_of([1])).item() == pytest.approx(20000.0)


def test_half_precision_is_computed_in_float32():
    scores = torch.randn(2, 5).bfloat16()
    loss = RegionContrastLoss()(scores, targets_of([0], [1]))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, RegionContrastLoss()(scores.float(), targets_of([0], [1])))


def test_nan_scores_show():
    scores = torch.randn(1, 5)
    scores[0, 2] = torch.nan
    assert RegionContrastLoss()(scores, targets_of([0])).isnan()


def test_wrong_input_is_named():
    scores = torch.randn(2, 5)
    with pytest.raises(ValueError, match="one shape"):
        RegionContrastLoss()(scores, targets_of([0]))
    with pytest.raises(ValueError, match="bool"):
        RegionContrastLoss()(scores, torch.zeros(2, 5))
    with pytest.raises(ValueError, match="temperature"):
        RegionContrastLoss(temperature=0.0)
    scores[1, 3] = -torch.inf
    with pytest.raises(ValueError, match=r"padded regions .* rows \[1\]"):
        RegionContrastLoss()(scores, targets_of([0], [3]))


def test_citation_names_both_works():
    assert "2604.03296" in RegionContrastLoss().citation and "1807.03748" in RegionContrastLoss().citation
