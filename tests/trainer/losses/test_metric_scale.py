import math

import pytest
import torch

from trainer.losses import MetricScaleLoss
from trainer.losses.metric_scale import measure_scale_errors


def test_hand_values():
    """ln 2 is above delta = 0.1: 0.1 (ln 2 - 0.05); ln 1.05 is below it: half of its square."""
    loss = MetricScaleLoss()
    assert loss(torch.zeros(1), torch.tensor([2.0])).item() == pytest.approx(0.1 * (math.log(2) - 0.05))
    assert loss(torch.zeros(1), torch.tensor([1.05])).item() == pytest.approx(math.log(1.05) ** 2 / 2, rel=1e-5)
    both = loss(torch.zeros(2), torch.tensor([2.0, 1.0]))
    assert both.item() == pytest.approx(0.05 * (math.log(2) - 0.05))
    assert loss(torch.tensor([3.0]).log(), torch.tensor([3.0])).item() == 0


def test_errors_are_relative():
    loss = MetricScaleLoss()
    small, large = (loss(torch.tensor([1.2 * d]).log(), torch.tensor([d])).item() for d in (0.5, 50.0))
    assert small == pytest.approx(large, rel=1e-4)


def test_videos_without_a_scale_do_not_count():
    predicted = torch.zeros(3, requires_grad=True)
    loss = MetricScaleLoss()(predicted, torch.tensor([0.0, 2.0, 0.0]))
    assert loss.item() == MetricScaleLoss()(torch.zeros(1), torch.tensor([2.0])).item()
    loss.backward()
    assert predicted.grad.tolist()[::2] == [0.0, 0.0] and predicted.grad[1] < 0
    nothing = MetricScaleLoss()(predicted, torch.zeros(3))
    nothing.backward()
    assert nothing.item() == 0


def test_errors_in_percent():
    errors = measure_scale_errors(torch.tensor([1.0, 3.0]).log(), torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(errors, torch.tensor([50.0, 50.0]))


@pytest.mark.parametrize(
    "predicted, depth, message",
    [
        (torch.zeros(2), torch.ones(3), "one shape"),
        (torch.zeros(1, 1), torch.ones(1, 1), "one shape"),
        (torch.zeros(1), torch.tensor([-1.0]), "at least 0 and finite"),
        (torch.zeros(1), torch.tensor([torch.nan]), "at least 0 and finite"),
    ],
)
def test_wrong_inputs(predicted, depth, message):
    with pytest.raises(ValueError, match=message):
        MetricScaleLoss()(predicted, depth)


def test_settings_and_citation():
    with pytest.raises(ValueError, match="`delta`"):
        MetricScaleLoss(delta=-1.0)
    assert "2606.05833" in MetricScaleLoss().citation
