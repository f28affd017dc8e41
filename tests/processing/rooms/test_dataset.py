import io
import json

import numpy as np
import pytest
from PIL import Image

from processing.posed_video import PosedVideo
from processing.regions import regions_from_ids
from processing.rooms import dataset as dataset_module
from processing.rooms import load_rooms, room_samples
from processing.rooms.generate import SPLITS, make_room, room_rng
from processing.rooms.measure import measure_rooms
from processing.rooms.questions.baselines import Baselines, format_table
from processing.rooms.scene.styles import STYLES
from processing.token_grid import TokenGrid

SMALL = {"image_size": 32, "num_frames": 2, "num_proc": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="module")
def four(cache):
    return load_rooms("validation", 4, cache_dir=cache, **SMALL)


def test_a_room_follows_from_its_seed_split_and_index_alone(four):
    def content(*which):
        row = make_room(*which, SMALL["image_size"], SMALL["num_frames"])[1]
        return [image["bytes"] for image in row["frames"]], row["questions"], row["objects"]

    once = content("validation", 0, 2)
    assert once == content("validation", 0, 2)
    assert all(once[2] != content(*other)[2] for other in [("test", 0, 2), ("validation", 1, 2), ("validation", 0, 3)])
    frames = [np.asarray(Image.open(io.BytesIO(data))) for data in once[0]]
    np.testing.assert_array_equal(frames, [np.asarray(image) for image in four[2]["frames"]])


def test_no_seed_of_one_split_or_style_meets_another():
    draws = [
        tuple(room_rng(split, seed, index, style=style).integers(0, 2**62, 2))
        for style in STYLES
        for split in SPLITS
        for seed in (-1, 0, 1, 2, 10, 2**32, 2**40)
        for index in range(40)
    ]
    assert len(set(draws)) == len(draws)


def test_a_row_holds_what_it_promises(four):
    row = four[0]
    assert len(four) == 4 and row["scene_id"] == "validation_0_000000"
    assert [image.mode for image in (row["frames"][0], row["depth"][0], row["instance_ids"][0])] == ["RGB", "F", "L"]
    video = PosedVideo.from_room(row)
    assert video.frames.shape == (2, 32, 32, 3) and video.depth.shape == (2, 32, 32) and video.has_geometry
    assert len(video.boxes) == len(video.labels) == len(row["objects"])
    thing = row["objects"][0]
    np.testing.assert_allclose(thing["box"], [*thing["center"], *thing["size"]])


def test_depth_is_stored_without_loss(four):
    encoded = make_room("validation", 0, 0, SMALL["image_size"], SMALL["num_frames"])[1]["depth"]
    for image, entry in zip(four[0]["depth"], encoded, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(entry["bytes"]))))
        assert len(np.unique(np.asarray(image))) > 200


def test_more_scenes_extend_fewer(four, cache):
    assert load_rooms("validation", 5, cache_dir=cache, **SMALL)[3]["questions"] == four[3]["questions"]


def test_rooms_from_a_start_on_are_rows_of_a_longer_load(four, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(dataset_module, "make_room", lambda *args: made.append(args[2]) or make_room(*args))
    rooms = load_rooms("validation", 2, start=1, cache_dir=str(tmp_path), **SMALL)
    assert made == [1, 2] and len(rooms) == 2
    raw, expected = (rows.with_format("arrow")[:] for rows in (rooms, four.select([1, 2])))
    assert raw.equals(expected)
    assert load_rooms("validation", 2, start=2, cache_dir=str(tmp_path), **SMALL)["scene_id"] == four["scene_id"][2:]


@pytest.mark.parametrize("start, error, message", [(-1, ValueError, "of at least 0"), (1.0, TypeError, "an int")])
def test_an_impossible_start(start, error, message):
    with pytest.raises(error, match=f"`start` .*{message}"):
        load_rooms("train", 2, start=start)


def test_the_same_arguments_are_read_from_the_cache(four, cache, monkeypatch):
    def refuse(*_):
        raise AssertionError("generated again")

    monkeypatch.setattr(dataset_module, "make_room", refuse)
    assert load_rooms("validation", 4, cache_dir=cache, **SMALL)[1]["questions"] == four[1]["questions"]
    # Neither does the number of processes matter.
    again = load_rooms("validation", 4, cache_dir=cache, **{**SMALL, "num_proc": 2})
    assert again[3]["scene_id"] == four[3]["scene_id"]


def test_processes_do_not_change_the_rooms(four, tmp_path):
    parallel = load_rooms("validation", 4, cache_dir=str(tmp_path), **{**SMALL, "num_proc": 2})
    assert parallel["scene_id"] == four["scene_id"] and parallel["questions"] == four["questions"]


def test_an_interrupted_generation_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    def interrupted(split, seed, index, *rest):
        if index == 2:
            raise KeyboardInterrupt
        return make_room(split, seed, index, *rest)

    monkeypatch.setattr(dataset_module, "make_room", interrupted)
    with pytest.raises(BaseException):  # noqa: B017
        load_rooms("test", 3, cache_dir=str(tmp_path), **SMALL)
    monkeypatch.undo()
    assert len(load_rooms("test", 3, cache_dir=str(tmp_path), **SMALL)) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("dev", 2), ValueError, "train"),
        (("train", 0), ValueError, "`num_scenes` must be an integer of at least 1"),
        (("train", -3), ValueError, "`num_scenes` must be an integer of at least 1"),
        (("train", 2.5), TypeError, "`num_scenes` must be an int"),
    ],
)
def test_impossible_requests_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        load_rooms(*arguments)


@pytest.mark.parametrize("name", ["num_frames", "image_size"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=name):
        load_rooms("train", 2, **{name: 0})


GRID = TokenGrid(32, 4, 2)


def test_a_packed_sample_holds_all_talk_about_a_room(four):
    row = four[0]
    talk, *ground = room_samples(row, GRID)
    questions = [q for q in row["questions"] if q["type"] != "grounding"]
    assert len(talk["messages"]) == len(questions)
    text = [(chat[0]["content"][-1]["text"], chat[1]["content"][0]["text"]) for chat in talk["messages"]]
    assert text == [(q["question"], q["answer"]) for q in questions]
    assert all(chat[0]["content"][0] == {"type": "video"} for chat in talk["messages"])
    pointed = [n for q in questions for n in q["region_objects"]]
    assert talk["object_ids"][talk["region_references"]].tolist() == pointed
    assert len(talk["region_masks"]) == len(set(pointed))
    assert talk["frames"].shape == (2, 32, 32, 3) and talk["depth"].dtype == np.float32
    assert len(ground) == sum(q["type"] == "grounding" for q in row["questions"])


def test_pointed_regions_show_the_first_frame_and_candidates_all(four):
    row = four[0]
    ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
    talk, ground = room_samples(row, GRID)[:2]
    np.testing.assert_array_equal(
        talk["region_masks"][:, 0],
        regions_from_ids(ids[:1], talk["object_ids"], GRID, min_share=0.5)[:, 0].numpy(),
    )
    assert not talk["region_masks"][:, 1:].any() and talk["region_masks"].any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(ground["region_masks"], regions_from_ids(ids, ground["object_ids"], GRID).numpy())
    whole = room_samples(row, GRID, first_frame_only=False)[0]
    mostly = regions_from_ids(ids, whole["object_ids"], GRID, min_share=0.5)
    np.testing.assert_array_equal(whole["region_masks"], mostly.numpy())


def test_grounding_targets_name_the_objects_or_none(four):
    none = 0
    for row in four:
        for sample in room_samples(row, GRID, types=["grounding"]):
            targets, (question,) = sample["region_targets"], sample["questions"]
            assert len(targets) == len(sample["region_masks"]) + 1 and sample["messages"][1]["role"] == "assistant"
            assert sample["object_ids"][targets[:-1]].tolist() == sorted(question["target_objects"])
            assert targets[-1] == (not question["target_objects"])
            none += targets[-1]
    assert none > 0


def test_questions_can_be_chosen_and_limited(four):
    row = four[0]
    pointed = room_samples(row, GRID, reference="region", types=["distance", "colour"])
    assert len(pointed) == 1
    assert {(q["type"], q["reference"]) for q in pointed[0]["questions"]} == {
        ("distance", "region"),
        ("colour", "region"),
    }
    words = room_samples(row, GRID, reference="word", types=["distance"])[0]
    assert "region_masks" not in words
    few = room_samples(row, GRID, max_questions=3, rng=np.random.default_rng(1), types=["distance", "size"])
    assert len(few) == 1 and len(few[0]["messages"]) == 3
    single = room_samples(row, GRID, packed=False, types=["closer", "direction"])
    assert all(sample["messages"][0]["role"] == "user" for sample in single)
    assert all(len(s["region_references"]) == 2 for s in single if s["questions"][0]["reference"] == "region")
    with pytest.raises(ValueError, match="reference"):
        room_samples(row, GRID, reference="regions")


def test_masks_follow_the_grid_of_the_model_not_the_size_of_the_room(four):
    large = room_samples(four[0], TokenGrid(64, 8, 2))[0]
    np.testing.assert_array_equal(large["region_masks"], room_samples(four[0], GRID)[0]["region_masks"])


def test_baselines_find_no_shortcut_where_rooms_are_balanced(rooms):
    rows = [row for _, row in rooms]
    table = {(entry["type"], entry["reference"]): entry for entry in Baselines(rows[:30]).score(rows[30:])}
    assert table["closer", "region"]["mean_row"] == table["closer", "region"]["bottom_row"] == 0.5
    assert table["existence", "word"]["majority"] == 0.5
    assert all(entry["text"] < 0.65 for entry in table.values())
    assert table["distance", "region"]["bottom_row"] < 0.65
    assert "existence" in format_table(list(table.values()))


def test_the_measurement_has_speed_and_baselines():
    measured = measure_rooms(num_scenes=3, image_size=32, num_frames=2, num_proc=1)
    assert measured.rooms_per_second > 0 and "bottom_row" in measured.as_text()
    assert json.loads(json.dumps(measured.as_dict()))["num_scenes"] == 3
