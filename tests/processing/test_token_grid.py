from types import SimpleNamespace

import numpy as np
import pytest
import torch

import processing
from modeling_ide3d.grounding_ide3d import split_frames
from processing import regions
from processing.token_grid import TokenGrid

SIZES = [(384, 14, 2), (378, 14, 2), (126, 14, 2), (70, 14, 3), ((56, 84), 14, 2), (224, 16, 1)]


@pytest.mark.parametrize(
    ("size", "patches", "covered", "shape", "tokens"),
    [
        ((384, 14, 2), (27, 27), (378, 378), (14, 14), 210),
        ((126, 14, 2), (9, 9), (126, 126), (5, 5), 30),
        (((56, 84), 14, 2), (4, 6), (56, 84), (2, 3), 8),
        ((224, 16, 1), (14, 14), (224, 224), (14, 14), 210),
    ],
)
def test_the_grid_follows_from_the_sizes(size, patches, covered, shape, tokens):
    grid = TokenGrid(*size)
    assert (grid.patches, grid.covered_size, grid.shape, grid.tokens_per_frame) == (patches, covered, shape, tokens)


@pytest.mark.parametrize("size", SIZES)
def test_a_ramp_lands_on_the_tokens_that_pooling_gives_it(size):
    """Mean pixel coordinate of every token equals its centre, and the bilinear pooling of patches agrees: no shift."""
    grid = TokenGrid(*size)
    height, width = grid.image_size
    index = grid.token_index()
    v, u = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    for ramp, cells, length, axis in (
        (v, grid.rows, grid.covered_size[0], 0),
        (u, grid.cols, grid.covered_size[1], 1),
    ):
        patches = torch.nn.functional.avg_pool2d(grid.crop(ramp)[None, None], grid.patch_size)
        pooled = torch.nn.functional.interpolate(patches, grid.shape, mode="bilinear", align_corners=False)[0, 0]
        centre = (torch.arange(cells).double() + 0.5) * length / cells - 0.5
        along = pooled.select(1 - axis, 0)
        torch.testing.assert_close(along[1:-1], centre[1:-1], atol=1e-6, rtol=0)
        for cell in range(cells):
            token = cell * grid.cols if axis == 0 else cell
            mean = ramp[index == token].mean()
            assert abs(mean - centre[cell]) <= 0.5  # Cells of a fractional size hold whole pixels.
            if length % cells == 0:
                assert mean == centre[cell]


def test_pixels_that_the_vision_tower_never_sees_have_no_token():
    index = TokenGrid(384, 14, 2).token_index()
    assert (index[378:] == -1).all() and (index[:, 378:] == -1).all() and (index[:378, :378] >= 0).all()
    assert torch.equal(index[:378, :378].unique(), torch.arange(196))


def test_frames_of_any_size_land_on_the_same_tokens():
    grid = TokenGrid(384, 14, 2)
    double = grid.token_index((768, 768))
    assert torch.equal(double[::2, ::2], grid.token_index()) and torch.equal(double[1::2, 1::2], grid.token_index())


@pytest.mark.parametrize("bad", [(10, 14, 2), (28, 0, 2), (28, 14, 0), ((28, 28, 3), 14, 2)])
def test_impossible_grids_raise(bad):
    with pytest.raises(ValueError, match="got"):
        TokenGrid(*bad)


def test_crop_checks_the_size():
    assert TokenGrid(384, 14, 2).crop(torch.zeros(2, 384, 384)).shape == (2, 378, 378)
    with pytest.raises(ValueError, match="384"):
        TokenGrid(384, 14, 2).crop(torch.zeros(378, 378))


def test_processor_and_config_give_the_grid_they_say_themselves(processor, tiny_config):
    assert TokenGrid.of(processor) == TokenGrid(70, 14, 2)
    assert TokenGrid.of(processor).shape == processor.token_grid
    config = tiny_config(vision={"image_size": 56, "patch_size": 8}, spatial_pool_stride=3)
    assert TokenGrid.of(config) == TokenGrid(56, 8, 3)
    assert TokenGrid.of(config).shape == config.token_grid
    assert TokenGrid.of(config).tokens_per_frame == config.tokens_per_frame


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        (SimpleNamespace(image_size=384, patch_size=14), "`spatial_pool_stride`"),
        (SimpleNamespace(vision_config=SimpleNamespace(image_size=384), spatial_pool_stride=2), "`patch_size`"),
        ("google/siglip", "`image_size`, `patch_size`, `spatial_pool_stride`"),
        (None, "NoneType"),
    ],
)
def test_what_has_no_grid_is_a_type_error_that_names_what_is_missing(source, missing):
    with pytest.raises(TypeError, match=missing):
        TokenGrid.of(source)


@pytest.mark.parametrize("size", SIZES)
def test_split_gives_every_token_its_row_and_column_without_newlines(size):
    grid = TokenGrid(*size)
    rows, cols = grid.shape
    place = torch.cartesian_prod(torch.arange(3), torch.arange(rows), torch.arange(cols + 1))  # frame, row, column
    split = grid.split(place)
    assert split.shape == (3, rows, cols, 3)
    for number, values in enumerate(torch.meshgrid(*map(torch.arange, (3, rows, cols)), indexing="ij")):
        assert torch.equal(split[..., number], values)
    assert torch.equal(grid.split(place[:, 2]), split[..., 2])
    assert torch.equal(grid.split(place[None].expand(2, -1, -1)), split[None].expand(2, -1, -1, -1, -1))
    without = place[place[:, 2] < cols]
    assert torch.equal(grid.split(without, tokens_after_row=0), split)
    assert torch.equal(split_frames(place, grid.shape), split)  # the exported model's own, which cannot import this


def test_split_of_no_frame_is_empty_and_of_part_of_a_frame_an_error():
    grid = TokenGrid(56, 14, 2)  # 2 rows of 2 tokens and a newline
    assert grid.split(torch.zeros(0, 5)).shape == (0, 2, 2, 5)
    with pytest.raises(ValueError, match="multiple of 6 tokens, frames of 2 rows of 2 and 1 behind each row, got 8"):
        grid.split(torch.zeros(8, 5))
    with pytest.raises(ValueError, match="multiple of 4 tokens.*got 6"):
        grid.split(torch.zeros(6), tokens_after_row=0)


def test_the_old_path_gives_the_same_class():
    assert regions.TokenGrid is TokenGrid is processing.TokenGrid


@pytest.mark.parametrize(
    "sizes", [(70, 1.5, 2), (70.5, 14, 2), (70, 14, 2.5), (70, 14, float("nan")), ("70", 14, 2), (70, None, 2)]
)
def test_parts_of_pixels_are_refused(sizes):
    with pytest.raises(ValueError, match="must be whole numbers of pixels and patches"):
        TokenGrid(*sizes)


def test_whole_numbers_of_any_type_are_taken():
    assert TokenGrid(np.int64(70), 14.0, np.float32(2)) == TokenGrid(70, 14, 2)
    assert all(type(side) is int for side in TokenGrid(70.0, np.int64(14), 2).shape)
