"""The benchmark runs with and without a checkout of the original; a checkout here is a folder with its interface."""

import json
import sys

import pytest
from benchmarks import against_original
from benchmarks.original_functions import read_original

# Functions with the names, arguments and results of the original's, and next to nothing inside.
CHECKOUT = {
    "llava/video_utils.py": """
import torch, absent_package
def unproject(intrinsics, poses, depths):
    return (depths / 1000).unsqueeze(-1).expand(*depths.shape, 3)
""",
    "llava/utils.py": """
import torch
from llava.constants import LOGDIR
print("a side effect")
CACHE = {}
def compute_cross_view_frame_pairs(poses, mode="neighbor", neighbor_range=1):
    frames = range(len(poses))
    pairs = [(i, j) for i in frames for j in frames[i + 1 : i + 1 + neighbor_range]] + [(frames[-1], frames[-1])]
    return [{"frame_i": i, "frame_j": j, "T_relative": torch.inverse(poses[j]) @ poses[i]} for i, j in pairs]
def compute_batched_reprojection_mask(depths_src, T_relatives, intrinsics, H, W):
    return depths_src > 0
""",
    "llava/model/geometric_loss.py": """
import torch
from dataclasses import dataclass
from llava.utils import rank0_print
@dataclass(eq=False)
class MultitaskLoss(torch.nn.Module):
    def __init__(self, depth=None):
        super().__init__()
        self.depth = depth
    def forward(self, predictions, batch):
        pairs, cross_view = batch["frame_pairs"], batch["cross_view_predictions"]["cross_view_depth"]
        assert len(cross_view) == pairs["num_pairs"] == len(pairs["valid_masks"]) == len(pairs["frame_j_indices"])
        error = (predictions["depth"][..., 0] - batch["depth"]).abs() * predictions["depth_conf"]
        return {"objective": self.depth["weight"] * (error.mean() + cross_view.mean())}
""",
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in CHECKOUT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(against_original, "NATIVE", (48, 64))
    monkeypatch.setattr(against_original, "GRID", against_original.TokenGrid(48, 14, 1))
    arguments = ["against_original.py", "--repeats", "1", "--frames", "4", "--loss-frames", "3", *map(str, words)]
    monkeypatch.setattr(sys, "argv", arguments)
    against_original.main()
    return json.loads(capsys.readouterr().out)


def test_without_a_checkout_the_reference_is_compared_with(monkeypatch, capsys):
    report = run(monkeypatch, capsys)
    targets, terms = report["targets"], report["terms"]
    assert targets["clean, share of other mask pixels"] == targets["paper, share of other mask pixels"] == 0.0
    assert terms["pairs"] >= 2 and terms["clean, relative difference"]["gradient"] < 1e-6
    assert set(terms["clean / reference"]) == {"seconds", "peak_mb"} and "clean / original" not in terms
    assert all(figures["peak_mb"] > 0 for figures in (*targets["figures"].values(), *terms["figures"].values()))


def test_with_a_checkout_its_functions_are_called(monkeypatch, capsys, checkout):
    report = run(monkeypatch, capsys, "--original", checkout)
    assert {"clean / original", "paper / original"} <= set(report["targets"]) & set(report["terms"])
    assert 0 < report["targets"]["paper, share of other mask pixels than the original"] < 1


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, checkout):
    with pytest.raises(FileNotFoundError, match=r"must be a checkout of the original, with llava/video_utils\.py"):
        read_original(tmp_path / "empty")
    (checkout / "llava/utils.py").write_text("import torch\n")
    with pytest.raises(ValueError, match=r"lacks \['compute_cross_view_frame_pairs', .* Expected commit 0002655e"):
        read_original(checkout)
