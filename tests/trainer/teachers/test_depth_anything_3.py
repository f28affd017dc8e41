"""The interface of the package depth-anything-3 0.1.1, by a module that puts colours where the features would be."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from processing.token_grid import TokenGrid
from trainer.teachers import DepthAnything3Teacher


class DepthAnything3(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(torch.ones(1))
        self.calls = []

    @classmethod
    def from_pretrained(cls, name):
        return cls({"anyview": {}} if "NESTED" in name else {"net": {"out_layers": [5, 7, 9, 11]}})

    def inference(
        self,
        image,
        process_res=504,
        process_res_method="upper_bound_resize",
        ref_view_strategy="saddle_balanced",
        export_feat_layers=None,
    ):
        """Sizes as the package makes them; features of any other reference view come in its order."""
        assert process_res_method == "upper_bound_resize"
        assert all(picture.dtype == np.uint8 and picture.shape[-1] == 3 for picture in image)
        self.calls.append((len(image), process_res))
        height, width = (side * process_res / max(image[0].shape[:2]) for side in image[0].shape[:2])
        rows, columns = max(1, round(height / 14)), max(1, round(width / 14))
        pixels = torch.from_numpy(np.stack(image)).permute(0, 3, 1, 2).float() / 255
        maps = nn.functional.interpolate(pixels, (rows, columns), mode="area").permute(0, 2, 3, 1)
        if ref_view_strategy != "first" and len(image) >= 3:
            maps = maps.flip(0)
        depth = np.zeros((len(image), rows * 14, columns * 14), np.float32)
        aux = {f"feat_layer_{layer}": (maps * (layer + 1)).numpy() for layer in export_feat_layers if layer < 12}
        return types.SimpleNamespace(depth=depth, aux=aux)


@pytest.fixture
def package(monkeypatch):
    """The package `depth_anything_3`, as far as the teacher uses it."""
    root, api = types.ModuleType("depth_anything_3"), types.ModuleType("depth_anything_3.api")
    api.DepthAnything3 = DepthAnything3
    monkeypatch.setitem(sys.modules, "depth_anything_3", root)
    monkeypatch.setitem(sys.modules, "depth_anything_3.api", api)


def test_patches_show_the_whole_frame_in_the_order_of_the_frames(package, coloured_frames):
    teacher = DepthAnything3Teacher()
    frames = coloured_frames(4, 480, 640)
    features = teacher.compute_features(frames, None, TokenGrid(384, 14, 2)) / 12  # the last layer is number 11
    assert teacher.network.calls == [(4, 504)] and features.shape == (4, 14, 14, 3)
    places = (torch.arange(14) + 0.5) / 14 * 378 / 384
    torch.testing.assert_close(features[0, 3, :, 0], places, atol=0.01, rtol=0)
    torch.testing.assert_close(features[0, :, 3, 1], places, atol=0.01, rtol=0)
    torch.testing.assert_close(features[:, 0, 0, 2], torch.arange(4) * 10 / 255, atol=1e-3, rtol=0)


def test_one_frame(package, coloured_frames):
    features = DepthAnything3Teacher(process_res=56).compute_features(
        coloured_frames(1, 40, 40), None, TokenGrid(8, 4)
    )
    assert features.shape == (1, 1, 1, 3)


def test_layers(package, coloured_frames):
    frames, grid = coloured_frames(2, 40, 40), TokenGrid(8, 4, 1)
    last, seventh = DepthAnything3Teacher(), DepthAnything3Teacher(layer=7)
    torch.testing.assert_close(
        last.compute_features(frames, None, grid) / 12, seventh.compute_features(frames, None, grid) / 8
    )
    assert "layer 11" in last.version and "layer 7" in seventh.version
    with pytest.raises(ValueError, match="gave no features of layer 40"):
        DepthAnything3Teacher(layer=40).compute_features(frames, None, grid)
    with pytest.raises(ValueError, match="give `layer`"):
        DepthAnything3Teacher("depth-anything/DA3NESTED-GIANT-LARGE")


def test_licence_depends_on_the_weights(package):
    """Small and base may be used freely, larger ones not commercially."""
    assert DepthAnything3Teacher().licence == "apache-2.0"
    assert DepthAnything3Teacher("depth-anything/DA3-LARGE-1.1").licence == "cc-by-nc-4.0"
    with pytest.raises(ValueError, match="No model card states the licence of somebody/DA3"):
        DepthAnything3Teacher("somebody/DA3")


def test_identity(package):
    teacher = DepthAnything3Teacher()
    assert teacher.name == "depth-anything/DA3-BASE" and teacher.feature_size == 3
    assert "sha256" in teacher.version and "depth-anything-3" in teacher.version and "504" in teacher.preprocessing


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "depth_anything_3", None)
    with pytest.raises(ImportError, match=r"not installed.* of its own: `pip install \. depth-anything-3 addict"):
        DepthAnything3Teacher()
