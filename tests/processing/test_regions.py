import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from processing.regions import (
    check_region_masks,
    regions_from_boxes_2d,
    regions_from_boxes_3d,
    regions_from_boxes_and_poses,
    regions_from_ids,
    regions_from_masks,
)
from processing.token_grid import TokenGrid

few = settings(max_examples=25, derandomize=True, deadline=None)
SIZES = [(384, 14, 2), (378, 14, 2), (126, 14, 2), (70, 14, 3), ((56, 84), 14, 2), (224, 16, 1)]


def camera(focal, grid):
    height, width = grid.image_size
    return torch.tensor([[[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]])


def box_points(grid, focal, distance):
    """World points of every pixel of a wall at `distance`, camera at the origin."""
    height, width = grid.image_size
    v, u = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x, y = (u - (width - 1) / 2) * distance / focal, (v - (height - 1) / 2) * distance / focal
    return torch.stack((x, y, torch.full_like(x, distance)), -1)[None]


def test_masks_ids_and_boxes_of_one_object_agree():
    grid = TokenGrid(56, 14, 2)
    ids = np.zeros((2, 56, 56), dtype=np.int32)
    ids[0, 28:, :28], ids[1, :, 28:] = 7, 9
    regions = regions_from_ids(ids, [7, 9, 5], grid)
    expected = torch.zeros(3, 2, 2, 2, dtype=torch.bool)
    expected[0, 0, 1, 0] = expected[1, 1, :, 1] = True
    assert torch.equal(regions, expected)
    assert torch.equal(regions_from_masks(ids == 7, grid)[0], expected[0])
    nan = float("nan")
    boxes = torch.tensor([[[0.0, 28.0, 28.0, 56.0], [nan] * 4], [[nan] * 4, [28.0, 0.0, 56.0, 56.0]]])
    assert torch.equal(regions_from_boxes_2d(boxes, (56, 56), grid), expected[:2])
    assert torch.equal(regions_from_boxes_2d(boxes / 2, (28, 28), grid), expected[:2])


@few
@given(size=st.sampled_from(SIZES), data=st.data())
def test_a_box_and_its_pixels_give_the_same_tokens(size, data):
    grid = TokenGrid(*size)
    height, width = grid.image_size
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    assume(max(bottom, right) > 1)  # The first pixel is refused: a normalised box looks like that.
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[0, top:bottom, left:right] = True
    from_pixels = regions_from_masks(mask, grid)
    from_box = regions_from_boxes_2d(torch.tensor([[left, top, right, bottom]]), grid.image_size, grid)
    differing = (from_pixels ^ from_box).sum().item()
    is_whole = grid.covered_size[0] % grid.rows == 0 and grid.covered_size[1] % grid.cols == 0
    assert differing <= (0 if is_whole else 2 * (grid.rows + grid.cols))  # Fractional cells round their pixels.


def test_small_regions_keep_their_best_token_and_unseen_ones_stay_empty():
    grid = TokenGrid(384, 14, 2)
    mask = torch.zeros(1, 3, 384, 384, dtype=torch.bool)
    mask[0, 1, 100, 100] = mask[0, 2, 200:202, 200] = True
    assert regions_from_masks(mask, grid).nonzero().tolist() == [[0, 2, 200 // 27, 200 // 27]]
    unseen = torch.zeros(1, 1, 384, 384, dtype=torch.bool)
    unseen[..., 380:] = True
    assert not regions_from_masks(unseen, grid).any()
    tiny = regions_from_boxes_2d(torch.tensor([[40.0, 30.0, 41.0, 31.0]]), (384, 384), grid)
    assert tiny.nonzero().tolist() == [[0, 0, 1, 1]]


def test_points_without_depth_are_in_no_box():
    grid = TokenGrid(28, 14, 1)
    points = torch.full((1, 28, 28, 3), torch.nan)
    points[:, :14] = 0.5
    regions = regions_from_boxes_3d(torch.tensor([[0.5, 0.5, 0.5, 1.0, 1.0, 1.0]]), points, grid)
    assert regions[0, 0].tolist() == [[True, True], [False, False]]


def test_box_limits_are_inclusive():
    grid = TokenGrid(14, 14, 1)
    points = torch.ones(1, 14, 14, 3)
    assert regions_from_boxes_3d(torch.tensor([1.5, 1.0, 1.0, 1.0, 0.0, 0.0]), points, grid).all()
    assert not regions_from_boxes_3d(torch.tensor([1.6, 1.0, 1.0, 1.0, 0.0, 0.0]), points, grid).any()
    assert regions_from_boxes_3d(torch.zeros(0, 6), points, grid).shape == (0, 1, 1, 1)


@pytest.mark.parametrize("size", [(378, 14, 2), (384, 14, 2), ((252, 378), 14, 2)])
def test_poses_alone_give_what_depth_gives_for_a_flat_box(size):
    grid = TokenGrid(*size)
    focal = grid.image_size[0] / 2
    boxes = torch.tensor([[0.1, -0.2, 2.0, 1.1, 0.9, 0.02], [-0.8, 0.5, 2.0, 1.2, 1.4, 0.02]])
    with_depth = regions_from_boxes_3d(boxes, box_points(grid, focal, 2.0), grid)
    with_poses = regions_from_boxes_and_poses(boxes, camera(focal, grid), torch.eye(4)[None], grid)
    assert with_depth.flatten(1).any(1).all()
    union, common = (with_depth | with_poses).sum(), (with_depth & with_poses).sum()
    assert common / union > 0.9


def test_poses_turn_the_boxes():
    grid = TokenGrid(56, 14, 2)
    turned = torch.tensor([[0.0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])  # Looks along +x.
    poses = torch.stack((torch.eye(4), turned))
    boxes = torch.tensor([[0.0, 0.0, 3.0, 1.0, 1.0, 1.0], [3.0, 0.0, 0.0, 1.0, 1.0, 1.0]])
    regions = regions_from_boxes_and_poses(boxes, camera(40.0, grid).expand(2, 3, 3), poses, grid)
    assert regions.flatten(2).any(-1).tolist() == [[True, False], [False, True]]


def test_boxes_around_behind_and_across_the_camera():
    grid = TokenGrid(56, 14, 2)
    boxes = [[0, 0, 0, 1, 1, 1], [0, 0, -3, 1, 1, 1], [0.8, 0, 0, 1, 9, 9], [0.3, 0.3, 60.0, 0.01, 0.01, 0.01]]
    regions = regions_from_boxes_and_poses(torch.tensor(boxes), camera(40.0, grid), torch.eye(4)[None], grid)[:, 0]
    assert regions[0].all() and not regions[1].any()
    assert regions[2].tolist() == [[False, True], [False, True]]
    assert regions[3].nonzero().tolist() == [[1, 1]]  # Too far for any ray, kept by its centre.


def test_numpy_and_torch_give_the_same():
    grid = TokenGrid(56, 14, 2)
    boxes = np.array([[0.0, 0.0, 2.0, 1.0, 0.5, 0.3]])
    points = box_points(grid, 40.0, 2.0)
    assert torch.equal(
        regions_from_boxes_3d(boxes, points.numpy(), grid), regions_from_boxes_3d(torch.tensor(boxes), points, grid)
    )
    masks = np.zeros((1, 1, 56, 56), dtype=bool)
    assert regions_from_masks(masks, grid).dtype == torch.bool


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: regions_from_masks(torch.zeros(2, 3, 8, 8), g), "bool"),
        (lambda g: regions_from_masks(torch.zeros(8, 8, dtype=torch.bool), g), "N, V, h, w"),
        (lambda g: regions_from_masks(torch.zeros(1, 1, 8, dtype=torch.bool), g), "coarser"),
        (lambda g: regions_from_ids(torch.zeros(1, 8, 8), [1], g), "integer"),
        (lambda g: regions_from_boxes_2d(torch.zeros(2, 5), (8, 8), g), "N, V, 4"),
        (lambda g: regions_from_boxes_2d(torch.tensor([[5.0, 0, 1, 4]]), (8, 8), g), "left <= right"),
        (lambda g: regions_from_boxes_3d(torch.zeros(2, 7), torch.zeros(1, 8, 8, 3), g), "N, 6"),
        (lambda g: regions_from_boxes_3d(torch.full((1, 6), torch.nan), torch.zeros(1, 8, 8, 3), g), "finite"),
        (lambda g: regions_from_boxes_3d(-torch.ones(1, 6), torch.zeros(1, 8, 8, 3), g), "not negative"),
        (lambda g: regions_from_boxes_3d(torch.ones(1, 6), torch.zeros(8, 8, 3), g), "V, h, w, 3"),
        (lambda g: regions_from_boxes_and_poses(torch.ones(1, 6), torch.eye(3), torch.eye(4), g), "V, 4, 4"),
        (lambda g: regions_from_boxes_and_poses(torch.ones(1, 6), torch.eye(3), torch.eye(4)[None], g), "1, 3, 3"),
        (
            lambda g: regions_from_boxes_and_poses(torch.ones(1, 6), torch.eye(3)[None], torch.eye(4)[None] / 0, g),
            "finite",
        ),
        (
            lambda g: regions_from_boxes_and_poses(torch.ones(1, 6), torch.zeros(1, 3, 3), torch.eye(4)[None], g),
            "focal length is not positive",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(TokenGrid(56, 14, 2))


def test_region_masks_of_another_grid_are_refused():
    grid = TokenGrid(56, 14, 2)
    check_region_masks(torch.zeros(3, 4, 2, 2, dtype=torch.bool), grid, num_views=4)
    for masks in (torch.zeros(3, 4, 4, 4).bool(), torch.zeros(3, 5, 2, 2).bool(), torch.zeros(3, 4, 2, 2)):
        with pytest.raises(ValueError, match=r"region_masks must be bool of shape \(N, 4, 2, 2\)"):
            check_region_masks(masks, grid, num_views=4)


def test_paper_asks_only_the_points_that_are_left_after_its_resize():
    grid = TokenGrid(70, 14, 1)
    v, u = torch.meshgrid(torch.arange(140), torch.arange(140), indexing="ij")
    points = torch.stack(((u % 2) * 1.0, (v % 2) * 1.0, torch.zeros(140, 140)), -1)[None]
    box = torch.tensor([1.0, 1.0, 0.0, 0.5, 0.5, 0.5])  # A quarter of the points, none of them on an even corner.
    assert regions_from_boxes_3d(box, points, grid).all()
    assert not regions_from_boxes_3d(box, points, grid, protocol="paper").any()
    with pytest.raises(ValueError, match="protocol"):
        regions_from_boxes_3d(box, points, grid, protocol="original")


@pytest.mark.parametrize("min_share", [float("nan"), -1, 1.5, float("inf"), "0.5", True, None])
def test_shares_outside_of_a_token_are_refused(min_share):
    grid, masks = TokenGrid(70, 14, 2), torch.ones(1, 1, 70, 70, dtype=torch.bool)
    cameras, poses = torch.tensor([[[60.0, 0, 35], [0, 60, 35], [0, 0, 1]]]), torch.eye(4)[None]
    box, share = torch.tensor([[0.0, 0, 3, 1, 1, 1]]), {"min_share": min_share}
    error = TypeError if min_share in ("0.5", None) or min_share is True else ValueError
    for call in (
        lambda: regions_from_masks(masks, grid, **share),
        lambda: regions_from_ids(masks[0].long(), [1], grid, **share),
        lambda: regions_from_boxes_2d([[[1, 1, 30, 30]]], (70, 70), grid, **share),
        lambda: regions_from_boxes_3d(box, torch.zeros(1, 70, 70, 3), grid, **share),
        lambda: regions_from_boxes_and_poses(box, cameras, poses, grid, **share),
    ):
        with pytest.raises(error, match="`min_share` must be .*, a share of a token's area"):
            call()


@pytest.mark.parametrize("region_id", [1.7, float("nan")])
def test_ids_that_are_not_whole_are_refused(region_id):
    grid, ids = TokenGrid(70, 14, 2), torch.ones(1, 70, 70, dtype=torch.long)
    with pytest.raises(ValueError, match="`region_ids` must be whole numbers"):
        regions_from_ids(ids, [region_id], grid)
    assert torch.equal(regions_from_ids(ids, [1.0], grid), regions_from_ids(ids, [1], grid))
    assert regions_from_ids(ids, [], grid).shape == (0, 1, 3, 3)


@pytest.mark.parametrize(
    "size",
    [
        (-70, 70),
        (70, -70),
        (0, 70),
        ("70", "70"),
        (70,),
        (70, 70, 3),
        70,
        None,
        (float("inf"), 70),
        (float("nan"), 70),
    ],
)
def test_frames_without_a_size_are_refused(size):
    with pytest.raises(ValueError, match="`frame_size` must be height and width in pixels"):
        regions_from_boxes_2d([[[1, 1, 30, 30]]], size, TokenGrid(70, 14, 2))


def test_boxes_without_an_end_are_refused():
    with pytest.raises(ValueError, match="must be pixels of the frame, or NaN"):
        regions_from_boxes_2d([[[1, 1, float("inf"), 30]]], (70, 70), TokenGrid(70, 14, 2))


def test_mirrored_poses_are_refused():
    mirrored = torch.diag(torch.tensor([-1.0, 1, 1, 1]))[None]
    cameras = torch.tensor([[[60.0, 0, 35], [0, 60, 35], [0, 0, 1]]])
    with pytest.raises(ValueError, match="is not a rigid motion"):
        regions_from_boxes_and_poses([[0, 0, 3, 1, 1, 1]], cameras, mirrored, TokenGrid(70, 14, 2))
