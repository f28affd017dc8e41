"""The criterion with the default weights of the training arguments is the original's geometric objective."""

from types import SimpleNamespace

import pytest

from trainer import IDE3DTrainingArguments
from trainer.geometry import FramePairs
from trainer.supervision.criterion import GeometryCriterion

pytestmark = pytest.mark.parity

PAIRS = ("frame_i_indices", "frame_j_indices", "batch_indices", "T_relatives", "weights", "valid_masks")


@pytest.mark.parametrize("file", ["geometric_loss", "geometric_loss_large"])
def test_the_weighted_terms_are_the_objective(golden, golden_json, file, tmp_path):
    tensors, scalars = golden(f"{file}.safetensors"), golden_json(f"{file}.json")
    weights = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, protocol="paper").loss_weights
    checked = []
    for case, expected in scalars.items():
        read = lambda name, case=case: tensors.get(f"{case}.in.{name}")  # noqa: E731
        has_pairs, cross_view = read("pairs.batch_indices") is not None, read("cross_view_depth")
        # Samples of ours say "no measurement" by depth 0 alone, and pairs always come with their prediction.
        if read("point_masks") is not None or has_pairs != (cross_view is not None):
            continue
        outputs = SimpleNamespace(depth=read("pred_depth").squeeze(-1), depth_confidence=read("conf"))
        targets = {"depth": read("gt_depth")}
        if has_pairs:
            outputs.cross_view_depth = cross_view.squeeze(-1)
            targets["pairs"] = FramePairs(*(read(f"pairs.{name}") for name in PAIRS))
        terms = GeometryCriterion(protocol="paper")(outputs, targets)
        objective = float(sum(weights[name] * term for name, term in terms.items()))
        assert objective == pytest.approx(float(expected["objective"]), abs=2e-6, rel=2e-5, nan_ok=True), case
        checked.append(case)
    assert checked
