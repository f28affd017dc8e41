"""Teacher features land on the tokens that show the same part of the picture."""

import pytest
import torch

from processing.token_grid import TokenGrid
from processing.token_pooling import pool_teacher_features

BORDER = TokenGrid(384, 14, 2)  # 14 x 14 tokens on the first 378 of 384 pixels


def ramp(rows, columns, window=(0.0, 0.0, 1.0, 1.0)):
    """Patches (rows, columns, 2) that hold the place of their middle in the frame, as shares of height and width."""
    top, left, bottom, right = window
    v = top + (torch.arange(rows) + 0.5) / rows * (bottom - top)
    u = left + (torch.arange(columns) + 0.5) / columns * (right - left)
    return torch.stack(torch.meshgrid(v, u, indexing="ij"), -1)


def token_middles(grid):
    """Middle of each token as shares of the frame, (rows, cols, 2)."""
    middles = [
        (torch.arange(count) + 0.5) / count * covered / whole
        for count, covered, whole in zip(grid.shape, grid.covered_size, grid.image_size, strict=True)
    ]
    return torch.stack(torch.meshgrid(*middles, indexing="ij"), -1)


@pytest.mark.parametrize("grid", [BORDER, TokenGrid(72, 14, 2), TokenGrid((64, 96), 8, 3), TokenGrid(378, 14, 2)])
@pytest.mark.parametrize("patches", [(384, 378), (280, 370)])
def test_a_ramp_lands_on_its_tokens(grid, patches):
    """Fine patches that hold their place give tokens that hold theirs, whatever border the model leaves out."""
    pooled = pool_teacher_features(ramp(*patches), grid)
    torch.testing.assert_close(pooled, token_middles(grid), atol=1e-4, rtol=0)


def test_paper_lays_the_tokens_over_the_whole_frame():
    """The last of 14 tokens is read 6 px too low: its middle at 364.5 of 384 px becomes 370.3."""
    pooled = pool_teacher_features(ramp(378, 378), BORDER, protocol="paper") * 384
    shift = pooled[..., 0] - token_middles(BORDER)[..., 0] * 384
    assert shift[-1].mean() == pytest.approx(6 * 13.5 / 14, abs=0.1) and shift[0].abs().max() < 0.5


def test_what_the_model_does_not_see_has_no_part():
    features = torch.zeros(384, 384, 1)
    features[378:], features[:, 378:] = 1e6, 1e6
    assert not pool_teacher_features(features, BORDER).any()
    assert pool_teacher_features(features, BORDER, protocol="paper").any()


def test_patches_are_weighed_by_area():
    """Three patches on two tokens: each token has one patch and half of the middle one."""
    features = torch.tensor([1.0, 10.0, 100.0])[None, :, None]
    pooled = pool_teacher_features(features, TokenGrid((8, 16), 8, 1))
    torch.testing.assert_close(pooled[0, :, 0], torch.tensor([(1 + 5) / 1.5, (100 + 5) / 1.5]))


def test_whole_cells_are_plain_means_in_both_protocols():
    features = torch.arange(4.0 * 6).reshape(1, 4, 6, 1).expand(2, 4, 6, 3)
    for protocol in ("clean", "paper"):
        pooled = pool_teacher_features(features, TokenGrid((16, 24), 8, 1), protocol=protocol)
        assert pooled.shape == (2, 2, 3, 3)
        torch.testing.assert_close(pooled[0, 0, 0, 0], torch.tensor((0 + 1 + 6 + 7) / 4))
        torch.testing.assert_close(pooled[1, 1, 2, 2], torch.tensor((16 + 17 + 22 + 23) / 4))


def test_a_window_moves_the_patches():
    """A teacher that sees the middle of the frame: tokens beside it are zero, those within hold their place."""
    window = (0.25, 0.0, 0.75, 1.0)
    pooled = pool_teacher_features(ramp(200, 400, window), TokenGrid(64, 8, 1), window=window)
    assert not pooled[:2].any() and not pooled[6:].any()
    torch.testing.assert_close(pooled[2:6], token_middles(TokenGrid(64, 8, 1))[2:6], atol=1e-4, rtol=0)


def test_features_are_detached_float32():
    features = torch.randn(2, 3, 2, 4, dtype=torch.float16, requires_grad=True)
    for protocol in ("clean", "paper"):
        pooled = pool_teacher_features(features, TokenGrid(16, 8, 1), protocol=protocol)
        assert pooled.dtype == torch.float32 and not pooled.requires_grad


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (torch.ones(4, 2), {}, r"must have shape \(\.\.\., patch rows, patch columns, C\), got \(4, 2\)"),
        (torch.ones(2, 0, 4, 2), {}, r"got \(2, 0, 4, 2\)"),
        (torch.ones(2, 2, 2), {"window": (0.5, 0.0, 0.5, 1.0)}, r"`window` must be .* got \(0.5, 0.0, 0.5, 1.0\)"),
        (torch.ones(2, 2, 2), {"window": (0.0, 0.0, 1.0, 1.1)}, "`window` must be"),
        (torch.ones(2, 2, 2), {"protocol": "old"}, "got 'old'"),
    ],
)
def test_wrong_inputs_are_named(features, options, message):
    with pytest.raises(ValueError, match=message):
        pool_teacher_features(features, BORDER, **options)
