"""Both cross-view terms of the original. "consistency" is the same L1 on the target frame's own prediction."""

import pytest
import torch

from trainer.losses import CrossViewDepthLoss

pytestmark = pytest.mark.parity

PAPER_FACTOR = 0.1  # The original multiplies inside the loss; ours is unweighted.
FILE = "cross_view_loss.safetensors"


def run(case, tensors):
    read = lambda name: tensors.get(f"{case}.in.{name}")  # noqa: E731
    rows = slice(None) if read("valid_pair_indices") is None else read("valid_pair_indices")
    target = (read("pairs.batch_indices")[rows], read("pairs.frame_j_indices")[rows])
    name = "pred_depth" if case.startswith("consistency") else "cross_view_depth"
    leaf = read(name).squeeze(-1).clone().requires_grad_()
    prediction = leaf[target] if name == "pred_depth" else leaf
    loss = PAPER_FACTOR * CrossViewDepthLoss(protocol="paper")(
        prediction, read("gt_depth")[target], read("pairs.valid_masks")[rows], read("pairs.weights")[rows]
    )
    loss.backward()
    return loss.detach(), leaf.grad, tensors[f"{case}.out.loss"], tensors.get(f"{case}.out.grad_{name}")


def test_every_case_has_the_original_value_and_gradient(golden):
    tensors = golden(FILE)
    cases = sorted({key.split(".in.")[0] for key in tensors if ".in." in key})
    assert {case.split("_")[0] for case in cases} == {"consistency", "prediction"}
    for case in cases:
        loss, gradient, expected, expected_gradient = run(case, tensors)
        torch.testing.assert_close(loss, expected, atol=2e-6, rtol=2e-5, msg=lambda m, c=case: f"{c}: {m}")
        if expected_gradient is None:
            assert not gradient.any(), case
        else:
            torch.testing.assert_close(
                gradient,
                expected_gradient.view(gradient.shape),
                atol=1e-7,
                rtol=1e-4,
                equal_nan=True,
                msg=lambda m, c=case: f"{c} gradient: {m}",
            )


def test_json_values_agree(golden, golden_json):
    tensors = golden(FILE)
    for case, expected in golden_json("cross_view_loss.json").items():
        if case != "corner_cases":
            assert float(run(case, tensors)[0]) == pytest.approx(expected, abs=2e-6, rel=2e-5), case


def test_no_pairs_give_zero(golden_json):
    assert set(golden_json("cross_view_loss.json")["corner_cases"].values()) == {0.0}
    empty = torch.zeros(0, 8, 8, requires_grad=True)
    for protocol in ("paper", "clean"):
        loss = CrossViewDepthLoss(protocol=protocol)(empty, empty, torch.zeros(0, 8, 8, dtype=torch.bool))
        assert loss.item() == 0.0 and loss.requires_grad
