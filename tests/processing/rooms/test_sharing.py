"""Rooms as a data set for the Hub: what `load_dataset` and the card give back."""

import json

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard

from processing.rooms import export_room_dataset, load_rooms
from processing.rooms.sharing import is_room_dataset

SMALL = {"image_size": 32, "num_frames": 2, "num_proc": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    target = tmp_path_factory.mktemp("shared") / "rooms"
    return export_room_dataset(target, num_scenes=3, repo_id="me/rooms", cache_dir=cache, **SMALL)


@pytest.fixture(scope="module")
def read(folder, cache):
    return lambda table: datasets.load_dataset(str(folder), table, cache_dir=cache)


def test_the_folder_loads_as_the_rooms_it_was_made_of(read, cache):
    stored = read("rooms")
    assert {split: len(rows) for split, rows in stored.items()} == {"train": 3, "validation": 3, "test": 3}
    rooms = load_rooms("test", 3, cache_dir=cache, **SMALL)
    for shared, row in zip(stored["test"], rooms, strict=True):
        for key in ("scene_id", "intrinsics", "camera_to_world", "objects", "questions"):
            assert shared[key] == row[key]
        for key in ("frames", "instance_ids"):
            np.testing.assert_array_equal(np.stack(shared[key]), np.stack(row[key]))
        depth = np.stack(shared["depth"])
        assert depth.dtype == np.uint16 and depth.min() > 0
        np.testing.assert_allclose(depth / 1000, np.stack(row["depth"]), atol=0.00051)


def test_every_question_is_a_row_that_shows_its_room(read):
    rooms, questions = read("rooms")["train"], read("questions")["train"]
    expected = [(row["scene_id"], entry["question"], entry["answer"]) for row in rooms for entry in row["questions"]]
    assert list(zip(questions["scene_id"], questions["question"], questions["answer"], strict=True)) == expected
    np.testing.assert_array_equal(np.asarray(questions[0]["first_frame"]), np.asarray(rooms[0]["frames"][0]))
    kinds = {name: type(feature).__name__ for name, feature in questions.features.items()}
    assert kinds["first_frame"] == "Image" and kinds["question"] == kinds["answer"] == "Value"


def test_files_of_rows_are_bounded_and_lose_none(tmp_path, cache, read, monkeypatch):
    monkeypatch.setattr("processing.rooms.sharing.ROWS_PER_FILE", 2)
    folder = export_room_dataset(tmp_path / "rooms", num_scenes=3, cache_dir=cache, **SMALL)
    assert len(list((folder / "rooms").glob("train-*.parquet"))) == 2
    again = datasets.load_dataset(str(folder), "rooms", cache_dir=cache, split="train")
    assert again["scene_id"] == read("rooms")["train"]["scene_id"]


def test_the_card_says_how_to_load_and_to_make_the_rooms(folder, read):
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0" and len(card.data.configs) == 2
    assert 'load_dataset("me/rooms", "questions", split="train")' in card.text
    assert "--num-scenes 3 --style plain --seed 0 --image-size 32 --num-frames 2" in card.text
    for table in ("rooms", "questions"):
        for name in read(table)["train"].features:
            assert f"`{name}`" in card.text


def test_an_earlier_set_is_replaced_and_anything_else_left_alone(folder, tmp_path, cache):
    assert is_room_dataset(folder)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "README.md").write_text("---\n: [\n---\n")
    with pytest.raises(FileExistsError, match="is not an earlier set of rooms"):
        export_room_dataset(foreign, num_scenes=1, cache_dir=cache, **SMALL)
    own = export_room_dataset(tmp_path / "own", num_scenes=2, cache_dir=cache, **SMALL)
    export_room_dataset(own, num_scenes=1, cache_dir=cache, **SMALL)
    assert len(datasets.load_dataset(str(own), "rooms", cache_dir=cache, split="test")) == 1
    assert json.dumps(str(own)) in (own / "README.md").read_text()
