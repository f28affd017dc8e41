"""Depth terms and their gradients, edge rules included, against the original's loss class."""

import pytest
import torch

from trainer.losses import CrossViewDepthLoss, DepthRegressionLoss
from trainer.losses.blocks import MAX_QUANTILE_ELEMENTS
from trainer.losses.depth_regression import MIN_VALID_PIXELS

pytestmark = pytest.mark.parity

VALUE = {"atol": 2e-6, "rtol": 2e-5, "equal_nan": True}
GRADIENT = {"atol": 1e-7, "rtol": 1e-4, "equal_nan": True}
FILES = ("geometric_loss.safetensors", "geometric_loss_large.safetensors")


def objective_of(case, tensors):
    """Terms and objective of one case in paper mode, with the inputs that carry gradients."""
    read = lambda name: tensors.get(f"{case}.in.{name}")  # noqa: E731
    leaves = {"pred_depth": read("pred_depth").squeeze(-1), "conf": read("conf")}
    if read("cross_view_depth") is not None:
        leaves["cross_view_depth"] = read("cross_view_depth").squeeze(-1)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    depth, mask = read("gt_depth"), read("point_masks")
    depth_loss, cross_view = DepthRegressionLoss(protocol="paper"), CrossViewDepthLoss(protocol="paper")
    terms = depth_loss.compute_terms(leaves["pred_depth"], leaves["conf"], depth, mask)
    own_view = other_view = torch.zeros(())
    if read("pairs.batch_indices") is not None and depth_loss.count_valid_pixels(depth, mask) >= MIN_VALID_PIXELS:
        target = (read("pairs.batch_indices"), read("pairs.frame_j_indices"))
        measured = (depth[target], read("pairs.valid_masks"), read("pairs.weights"))
        own_view = 0.1 * cross_view(leaves["pred_depth"][target], *measured)
        if "cross_view_depth" in leaves:
            other_view = 0.1 * cross_view(leaves["cross_view_depth"], *measured)
    values = {
        "loss_conf_depth": terms.confidence,
        "loss_reg_depth": terms.regression,
        "loss_grad_depth": terms.gradient,
        "loss_cross_view_depth": own_view,
        "loss_cross_view_pred": other_view,
    }
    values["objective"] = values["total_depth_loss"] = 0.8 * sum(values.values())
    return values, leaves


@pytest.mark.parametrize("file", FILES)
def test_every_case_has_the_original_values_and_gradients(golden, file):
    tensors = golden(file)
    cases = sorted({key.split(".in.")[0] for key in tensors if ".in." in key})
    assert cases
    for case in cases:
        values, leaves = objective_of(case, tensors)
        for name, value in values.items():
            torch.testing.assert_close(
                value.detach(), tensors[f"{case}.out.{name}"], **VALUE, msg=lambda m, n=name, c=case: f"{c} {n}: {m}"
            )
        values["objective"].backward()
        for name, leaf in leaves.items():
            expected = tensors.get(f"{case}.out.grad_{name}")
            expected = torch.zeros_like(leaf) if expected is None else expected.view(leaf.shape)
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            torch.testing.assert_close(
                gradient, expected, **GRADIENT, msg=lambda m, n=name, c=case: f"{c} gradient of {n}: {m}"
            )


@pytest.mark.parametrize("file", FILES)
def test_no_output_of_the_files_is_left_out(golden, file):
    known = {
        "loss_conf_depth",
        "loss_reg_depth",
        "loss_grad_depth",
        "loss_cross_view_depth",
        "loss_cross_view_pred",
        "total_depth_loss",
        "objective",
        "grad_pred_depth",
        "grad_conf",
        "grad_cross_view_depth",
    }
    assert {key.split(".out.")[1] for key in golden(file) if ".out." in key} <= known


@pytest.mark.parametrize("file", FILES)
def test_json_values_agree(golden, golden_json, file):
    tensors, scalars = golden(file), golden_json(file.replace(".safetensors", ".json"))
    for case, expected in scalars.items():
        values, leaves = objective_of(case, tensors)
        for name, value in values.items():
            assert float(value.detach()) == pytest.approx(float(expected[name]), abs=2e-6, rel=2e-5, nan_ok=True), (
                case,
                name,
            )
        values["objective"].backward()
        if expected["grad_pred_is_none"]:  # The original gives constants; ours are zeros that stay in the graph.
            assert not leaves["pred_depth"].grad.any()


def test_the_subsampling_limit_is_the_original_one():
    assert MAX_QUANTILE_ELEMENTS == 1_000_000
