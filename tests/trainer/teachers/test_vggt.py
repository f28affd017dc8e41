"""VGGT's interface, as its README documents it, by a module that puts colours where the features would be."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from processing.token_grid import TokenGrid
from trainer.teachers import VGGTTeacher

SPECIAL = 5  # One camera token and four registers stand before the patches.


class Aggregator(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.calls = []

    def forward(self, images):
        self.calls.append(tuple(images.shape))
        assert images.dim() == 5 and images.shape[1:3][1] == 3 and 0 <= images.min() and images.max() <= 1
        patches = nn.functional.avg_pool2d(images[0], 14).flatten(2).transpose(1, 2) * self.scale
        special = torch.full((len(patches), SPECIAL, 3), 1e3)
        # Every frame knows of the others: the last channel is the mean of the video.
        known = patches.mean().expand(*patches.shape[:2], 1)
        tokens = torch.cat([special, patches], 1)
        last = torch.cat([tokens, nn.functional.pad(known, (0, 0, SPECIAL, 0))], -1)
        return [torch.zeros_like(last)[None], last[None]], SPECIAL


class VGGT(nn.Module):
    asked = None

    def __init__(self):
        super().__init__()
        self.aggregator = Aggregator()

    @classmethod
    def from_pretrained(cls, name):
        cls.asked = name
        return cls()


@pytest.fixture
def vggt(monkeypatch):
    """The package `vggt`, as far as the teacher uses it."""
    package, models, module = (types.ModuleType(name) for name in ("vggt", "vggt.models", "vggt.models.vggt"))
    module.VGGT = VGGT
    for made in (package, models, module):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return VGGT


def test_patches_of_the_original_size(vggt, coloured_frames):
    """Frames of 480 x 640 become 392 x 518 px, 28 x 37 patches, without camera and register tokens."""
    teacher = VGGTTeacher()
    patches, window = teacher.compute_patches(torch.from_numpy(coloured_frames(2, 480, 640)).permute(0, 3, 1, 2))
    assert patches.shape == (2, 28, 37, 4) and window == (0.0, 0.0, 1.0, 1.0)
    assert teacher.aggregator.calls == [(1, 2, 3, 392, 518)]
    expected = (np.arange(37) + 0.5) / 37
    torch.testing.assert_close(patches[0, 5, :, 0].double(), torch.from_numpy(expected), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("frame", "size"), [((640, 480), (518, 392)), ((300, 300), (518, 518)), ((10, 400), (14, 518))]
)
def test_whole_frames_are_shown_whatever_their_shape(vggt, coloured_frames, frame, size):
    teacher = VGGTTeacher()
    features = teacher.compute_features(coloured_frames(1, *frame), None, TokenGrid(384, 14, 2))
    assert teacher.aggregator.calls == [(1, 1, 3, *size)]
    places = (torch.arange(14) + 0.5) / 14 * 378 / 384
    torch.testing.assert_close(features[0, 3, :, 0], places, atol=0.02, rtol=0)
    if size[0] > 14:
        torch.testing.assert_close(features[0, :, 3, 1], places, atol=0.02, rtol=0)


def test_all_frames_are_seen_together(vggt, coloured_frames):
    frames = coloured_frames(3, 48, 64)
    together = VGGTTeacher().compute_features(frames, None, TokenGrid(64, 8, 2))
    alone = VGGTTeacher().compute_features(frames[:1], None, TokenGrid(64, 8, 2))
    assert together.shape == (3, 4, 4, 4) and not torch.allclose(together[:1], alone)


def test_identity(vggt):
    teacher = VGGTTeacher()
    assert vggt.asked == teacher.name == "facebook/VGGT-1B" and teacher.licence == "cc-by-nc-4.0"
    assert "sha256" in teacher.version and "518" in teacher.preprocessing and teacher.feature_size == 4
    with pytest.raises(ValueError, match="No model card states the licence of somebody/VGGT"):
        VGGTTeacher("somebody/VGGT")
    assert VGGTTeacher("somebody/VGGT", licence="own").licence == "own"


def test_a_file_of_weights(vggt, tmp_path):
    network = VGGT()
    network.aggregator.scale.data[:] = 3
    torch.save(network.state_dict(), tmp_path / "model.pt")
    teacher = VGGTTeacher(tmp_path / "model.pt", licence="own")
    assert teacher.name == "model.pt" and teacher.aggregator.scale == 3
    assert teacher.version != VGGTTeacher().version
    with pytest.raises(ValueError, match="No model card states the licence"):
        VGGTTeacher(tmp_path / "model.pt")
    torch.save({"aggregator.scale": torch.ones(1), "run": types.SimpleNamespace()}, tmp_path / "code.pt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        VGGTTeacher(tmp_path / "code.pt", licence="own")


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "vggt", None)
    with pytest.raises(ImportError, match="vggt is not installed.*pip install git"):
        VGGTTeacher()


def test_another_number_of_patches_is_refused(vggt, monkeypatch, coloured_frames):
    teacher = VGGTTeacher()
    monkeypatch.setattr(teacher.aggregator, "forward", lambda images: ([torch.zeros(1, 1, 40, 4)], SPECIAL))
    with pytest.raises(ValueError, match="35 patches for 37 x 37"):
        teacher.compute_features(coloured_frames(1, 8, 8), None, TokenGrid(8, 8, 1))
