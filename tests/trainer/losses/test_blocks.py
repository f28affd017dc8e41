import pytest
import torch

from trainer.losses.blocks import filter_upper_tail, gradient_difference, graph_zero, replace_non_finite


def test_graph_zero_keeps_the_graph_and_shows_nan():
    x, y = torch.randn(3, requires_grad=True), torch.randn(2, 2).bfloat16().requires_grad_()
    zero = graph_zero(x, y)
    zero.backward()
    assert zero.item() == 0.0 and zero.dtype == torch.float32
    assert torch.equal(x.grad, torch.zeros(3)) and torch.equal(y.grad, torch.zeros(2, 2).bfloat16())
    assert graph_zero(torch.tensor([torch.nan])).isnan()
    assert graph_zero(torch.zeros(0, requires_grad=True)).item() == 0.0


def test_replace_non_finite():
    values = torch.tensor([1.0, torch.nan, torch.inf, -torch.inf, 500.0, -500.0])
    assert replace_non_finite(values).tolist() == [1.0, 0.0, 0.0, 0.0, 100.0, -100.0]
    assert replace_non_finite(values, None).tolist() == [1.0, 0.0, 0.0, 0.0, 500.0, -500.0]


@pytest.mark.parametrize(("count", "is_filtered"), [(1000, False), (1001, False), (1030, True)])
def test_the_tail_is_cut_only_if_enough_remains(count, is_filtered):
    values = torch.arange(count, dtype=torch.float32)
    filtered = filter_upper_tail(values, 0.98)
    threshold = round(0.98 * (count - 1))
    assert (filtered != values).any() == is_filtered
    if is_filtered:
        assert not filtered[threshold:].any()
        assert filtered.mean().item() == pytest.approx(values[:threshold].mean().item(), rel=1e-5)


def test_gradient_difference_needs_both_neighbors():
    prediction, target = torch.zeros(1, 1, 4), torch.tensor([[[0.0, 1.0, 1.0, 3.0]]])
    everywhere = torch.ones(1, 1, 4, dtype=torch.bool)
    assert gradient_difference(prediction, target, everywhere).item() == pytest.approx(3 / 4)
    hole = torch.tensor([[[True, False, True, True]]])
    assert gradient_difference(prediction, target, hole).item() == pytest.approx(2 / 3)
