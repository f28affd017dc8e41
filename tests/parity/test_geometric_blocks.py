"""Building blocks: gradient terms, the quantile filter, the NaN/Inf cleaner."""

import re

import pytest
import torch

from trainer.losses import DepthRegressionLoss
from trainer.losses.blocks import (
    PAPER_HARD_MAX,
    filter_upper_tail,
    find_threshold,
    gradient_difference,
    gradient_difference_multiscale,
    replace_non_finite,
)

pytestmark = pytest.mark.parity

VALUE = {"atol": 2e-6, "rtol": 2e-5}
GRADIENT = {"atol": 1e-7, "rtol": 1e-4}
FILE = "geometric_blocks.safetensors"


@pytest.fixture
def tensors(golden):
    return golden(FILE)


def leaves_of(tensors, group):
    return [tensors[f"{group}.in.{name}"].clone().requires_grad_() for name in ("pred", "conf")]


def check(name, loss, prediction, confidence, tensors):
    torch.testing.assert_close(loss.detach(), tensors[f"{name}.out"], **VALUE, msg=lambda m: f"{name}: {m}")
    loss.backward()
    for leaf, key in ((prediction, "grad_pred"), (confidence, "grad_conf")):
        if f"{name}.out.{key}" in tensors:
            torch.testing.assert_close(
                leaf.grad, tensors[f"{name}.out.{key}"], **GRADIENT, msg=lambda m, k=key: f"{name} {k}: {m}"
            )


@pytest.mark.parametrize("with_confidence", [False, True])
@pytest.mark.parametrize("block", ["gradient_loss", "gradient_loss_multiscale4"])
def test_gradient_blocks(tensors, block, with_confidence):
    prediction, confidence = leaves_of(tensors, "blocks")
    function = gradient_difference_multiscale if "multiscale" in block else gradient_difference
    loss = function(
        prediction,
        tensors["blocks.in.target"],
        tensors["blocks.in.mask"],
        confidence if with_confidence else None,
        hard_max=PAPER_HARD_MAX,
    )
    check(block + "_conf" * with_confidence, loss, prediction, confidence, tensors)


def test_gradient_at_each_scale_and_without_a_valid_pixel(tensors):
    names = [key for key in tensors if key.startswith("gradient_loss_scale")]
    assert names
    inputs = [tensors[f"blocks.in.{name}"] for name in ("pred", "target", "mask")]
    for name in names:
        step = 2 ** int(name.removeprefix("gradient_loss_scale").removesuffix(".out"))
        loss = gradient_difference(*(x[:, ::step, ::step] for x in inputs), hard_max=PAPER_HARD_MAX)
        torch.testing.assert_close(loss, tensors[name], **VALUE)
    loss = gradient_difference(inputs[0], inputs[1], torch.zeros_like(inputs[2]))
    torch.testing.assert_close(loss, tensors["gradient_loss_all_masked.out"], **VALUE)


def test_regression_at_each_quantile(tensors):
    ranges = sorted({key.split("_vr")[1].split(".out")[0] for key in tensors if key.startswith("regression_vr")})
    assert ranges
    for valid_range in ranges:
        prefix = f"regression_vr{valid_range}.out."
        prediction, confidence = leaves_of(tensors, "blocks")
        terms = DepthRegressionLoss(valid_range=float(valid_range), protocol="paper").compute_terms(
            prediction.squeeze(-1).unsqueeze(0),
            confidence.unsqueeze(0),
            tensors["blocks.in.target"].squeeze(-1).unsqueeze(0),
            tensors["blocks.in.mask"].unsqueeze(0),
        )
        for term, name in zip(terms, ("loss_conf", "loss_reg", "loss_grad"), strict=True):
            torch.testing.assert_close(term.detach(), tensors[prefix + name], **VALUE)
        (terms.confidence + 2 * terms.gradient + 3 * terms.regression).backward()
        for leaf, name in ((prediction, "grad_pred"), (confidence, "grad_conf")):
            expected = tensors[f"{prefix}{name}_of_conf+2grad+3reg"].view(leaf.shape)
            torch.testing.assert_close(leaf.grad, expected, **GRADIENT)


def test_quantile_filter(tensors):
    names = [key for key in tensors if key.startswith("quantile.out.filter_")]
    assert names
    for name in names:
        count, valid_range = name.removeprefix("quantile.out.filter_").split("_vr")
        values = tensors[f"quantile.in.x{count}"].clamp(-PAPER_HARD_MAX, PAPER_HARD_MAX)
        torch.testing.assert_close(filter_upper_tail(values, float(valid_range)), tensors[name], **VALUE)


def test_quantile_threshold(tensors):
    names = [key for key in tensors if key.startswith("quantile.out.torch_quantile_")]
    assert names
    for name in names:
        count, valid_range = name.removeprefix("quantile.out.torch_quantile_").split("_")
        threshold = find_threshold(tensors[f"quantile.in.x{count}"], float(valid_range))
        torch.testing.assert_close(threshold, tensors[name].view(()), **VALUE)


def values_by_formula(record):
    """The `N` values that the formula in `input` of a golden record describes."""
    found = re.search(r"\(i\s*\*\s*(\d+)\)\s*mod\s*(\d+)\)\s*/\s*([\d.]+)\)", record["input"])
    assert found, f"no formula ((i*factor) mod modulus)/divisor in {record['input']!r}"
    factor, modulus, divisor = int(found[1]), int(found[2]), float(found[3])
    index = torch.arange(record["N"], dtype=torch.int64)
    return (((index * factor) % modulus).double() / divisor).float()


def test_values_follow_the_formula_of_the_folder():
    record = {"input": "x[i] = float32(((i*5) mod 7)/2.0) computed in float64, i=0..4", "N": 5}
    assert values_by_formula(record).tolist() == [0.0, 2.5, 1.5, 0.5, 3.0]


def test_quantile_threshold_of_more_than_a_million_values(golden_json):
    expected = golden_json("geometric_blocks.json")["quantile_subsample"]
    values = values_by_formula(expected)
    filtered = filter_upper_tail(values, expected["valid_range"])
    assert int((filtered != 0).sum()) == expected["nonzero_after_filter"]
    assert int((values < expected["threshold_q"]).sum()) == expected["num_kept(flat<q)"]
    torch.testing.assert_close(filtered[:10], torch.tensor(expected["first10_after_filter"]), **VALUE)
    assert float(filtered.double().mean()) == pytest.approx(expected["mean_after_filter"], rel=2e-5)


def test_cleaner(tensors):
    torch.testing.assert_close(replace_non_finite(tensors["fix.in"], 100.0), tensors["fix.out.hard_max100"])
    torch.testing.assert_close(replace_non_finite(tensors["fix.in"], None), tensors["fix.out.hard_maxNone"])
