"""Regions from files: which frame an entry belongs to, what is dropped, and what each wrong file is told."""

import json

import numpy as np
import pytest
import torch

from processing import TokenGrid
from processing.region_files import read_regions
from processing.regions import regions_from_boxes_2d, regions_from_ids, regions_from_masks

GRID = TokenGrid(32, 8, 1)  # 4 x 4 tokens
SHOWN, TOTAL = (0, 3, 6), 8
BOX = [0, 0, 16, 16]
NAN = [float("nan")] * 4


@pytest.fixture
def write_boxes(tmp_path):
    def write(boxes, frame_size=(32, 32)):
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps({"frame_size": list(frame_size), "boxes": boxes}))
        return path

    return write


def read(path):
    return read_regions(path, GRID, SHOWN, TOTAL)


class TestBoxes:
    def test_a_list_of_all_frames_one_of_the_shown_and_a_mapping_agree(self, write_boxes):
        whole = [None] * TOTAL
        whole[3] = BOX
        for entries in (whole, [None, BOX, None], {"3": BOX}, {"3": BOX, "4": BOX}):
            regions = read(write_boxes({"chair": entries}))
            assert regions.names == ("chair",) and len(regions) == 1
            expected = regions_from_boxes_2d(torch.tensor([[NAN, BOX, NAN]]), (32, 32), GRID)
            assert torch.equal(regions.masks, expected)

    def test_the_frame_has_its_own_size(self, write_boxes):
        small = read(write_boxes({"a": [BOX] * 3}))
        large = read(write_boxes({"a": [[side * 2 for side in BOX]] * 3}, frame_size=(64, 64)))
        assert torch.equal(small.masks, large.masks) and small.masks[0, :, :2, :2].all() and small.masks.sum() == 12

    def test_what_no_shown_frame_holds_is_left_out(self, write_boxes):
        path = write_boxes({"seen": {"0": BOX}, "hidden": {"1": BOX}})
        assert read(path).names == ("seen",)
        with pytest.raises(ValueError, match=r"No region of .* is in the frames shown, 0, 3, 6\. Mark objects"):
            read(write_boxes({"hidden": {"1": BOX}}))

    @pytest.mark.parametrize(
        ("boxes", "message"),
        [
            ({}, "must map the name of each object"),
            ({"a": [BOX] * 5}, "has 5 frames, but the video has 8, of which 3 are shown"),
            ({"a": {"8": BOX}}, r"boxes in frames \['8'\], the video has 8"),
            ({"a": {"03": BOX}}, r"boxes in frames \['03'\]"),
            ({"a": {"\u00b2": BOX}}, "boxes in frames"),
            ({"a": {"9" * 5000: BOX}}, "boxes in frames"),
            ({"a": [[10**400, 0, 1, 1], None, None]}, "a box is"),
            ({"a": [[True, 0, 1, 1], None, None]}, "a box is"),
            ({"a": {"first": BOX}}, r"boxes in frames \['first'\]"),
            ({"a": BOX[0]}, "must have a list or a mapping of boxes"),
            ({"a": [[1, 2, 3], None, None]}, r"a box is \[left, top, right, bottom\] or null, got \[1, 2, 3\]"),
            ({"a": [[9, 0, 3, 5], None, None]}, "left <= right"),
        ],
    )
    def test_wrong_boxes_are_named(self, write_boxes, boxes, message):
        with pytest.raises(ValueError, match=message):
            read(write_boxes(boxes))

    def test_other_keys_and_sizes_are_named(self, tmp_path, write_boxes):
        path = tmp_path / "other.json"
        path.write_text('{"boxes": {}}')
        with pytest.raises(ValueError, match=r"must hold `frame_size` and `boxes`, got \['boxes'\]"):
            read(path)
        path.write_text("[1")
        with pytest.raises(ValueError, match=r"other\.json is not complete JSON"):
            read(path)
        with pytest.raises(ValueError, match=r"must be \[height, width\] in pixels, got \[0, 32\]"):
            read(write_boxes({"a": [BOX] * 3}, frame_size=(0, 32)))


class TestArrays:
    ids = np.zeros((TOTAL, 32, 32), np.uint16)
    ids[3, :16, :16], ids[6, 16:, 16:], ids[1, 8:, 8:] = 7, 9, 11

    def test_ids_of_all_frames_or_of_those_shown(self, tmp_path):
        for array in (self.ids, self.ids[list(SHOWN)]):
            np.save(tmp_path / "ids.npy", array)
            regions = read(tmp_path / "ids.npy")
            assert regions.names == ("7", "9")  # 11 is in no frame shown
            expected = regions_from_ids(self.ids[list(SHOWN)].astype(np.int64), [7, 9], GRID)
            assert torch.equal(regions.masks, expected)

    def test_masks_by_number_and_by_name(self, tmp_path):
        masks = np.stack([self.ids == 7, self.ids == 9])
        np.save(tmp_path / "masks.npy", masks)
        np.savez(tmp_path / "masks.npz", table=masks[0], chair=masks[1])
        np.savez(tmp_path / "one.npz", masks=masks)
        expected = regions_from_masks(masks[:, list(SHOWN)], GRID)
        for name, names in (("masks.npy", ("0", "1")), ("masks.npz", ("table", "chair")), ("one.npz", ("0", "1"))):
            regions = read(tmp_path / name)
            assert regions.names == names and torch.equal(regions.masks, expected), name

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((8, 32, 32)), "holds float64"),
            (np.zeros((2, 8, 32, 32), int), "holds int64"),
            (np.zeros((4, 32, 32), int), "has 4 frames, but the video has 8"),
            (np.zeros((2, 4, 32, 32), bool), "has 4 frames, but the video has 8"),
            (np.array([{"a": 1}], object), "cannot be read as arrays"),
        ],
    )
    def test_other_arrays_are_named(self, tmp_path, array, message):
        np.save(tmp_path / "odd.npy", array, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "odd.npy")


def test_what_is_no_file_of_regions_is_told_the_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of regions at .*absent.json\. Expected .json"):
        read(tmp_path / "absent.json")
    for name in ("regions.txt", "regions.npy"):
        (tmp_path / name).write_text("a chair")
        with pytest.raises(ValueError, match=r"Expected \.json \(boxes\)"):
            read(tmp_path / name)
