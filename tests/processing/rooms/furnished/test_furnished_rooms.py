"""Furnished rooms: the questions of all rooms, about meshes of true size, in pictures without grain."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from processing.rooms import generate, load_rooms
from processing.rooms.box_questions import ask_boxes
from processing.rooms.furnished.catalogue import FURNITURE_FILE, read_catalogue
from processing.rooms.furnished.pieces import furnish
from processing.rooms.generate import make_room
from processing.rooms.questions.wording import has_colour, object_phrase
from processing.rooms.scene.layout import build_room
from processing.rooms.scene.palette import COLOURS
from processing.rooms.scene.styles import FURNISHED

SHAPE = {"image_size": 32, "num_frames": 2, "num_proc": 1}


@pytest.fixture(scope="module")
def rooms():
    return [make_room("train", 0, index, 32, 2, "furnished") for index in range(8)]


def decoded(images: list[dict]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in images])


def test_rooms_hold_meshes_and_all_questions(rooms):
    assert sum(thing.mesh is not None for room, _ in rooms for thing in room.objects) > 4 * len(rooms)
    asked = {(q["type"], q["reference"]) for _, row in rooms for q in row["questions"]}
    words = ("existence", "counting", "colour", "direction", "closer", "distance", "position", "grounding")
    assert {(kind, "word") for kind in words} <= asked


def test_boxes_hold_what_is_seen_of_an_object(rooms):
    for _, row in rooms[:4]:
        depth, ids = decoded(row["depth"]), decoded(row["instance_ids"])
        for frame, (pose, camera) in enumerate(zip(row["camera_to_world"], row["intrinsics"], strict=True)):
            y, x = np.indices(depth[frame].shape)
            rays = np.linalg.inv(camera) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
            points = (pose[:3, :3] @ (rays * depth[frame].ravel()) + pose[:3, 3:]).T
            for thing in row["objects"]:
                own = points[ids[frame].ravel() == thing["id"]]
                if len(own):
                    away = np.abs(own - np.array(thing["center"])) - np.array(thing["size"]) / 2
                    assert away.max() < 2e-3, thing["category"]


def test_meshes_have_the_sizes_of_the_catalogue():
    pieces = {id(piece.shape): piece for group in read_catalogue().values() for piece in group}
    room = build_room(np.random.default_rng(5), "chair", 2, FURNISHED, furnish(read_catalogue()))
    meshes = [thing for thing in room.objects if thing.mesh]
    assert meshes
    for thing in meshes:
        piece = pieces[id(thing.mesh.shape)]
        assert thing.category == piece.category
        assert thing.size[2] == pytest.approx(piece.size[2], abs=1e-3)


def test_a_colour_is_named_only_where_one_covers_a_piece(rooms):
    plain = [thing for room, _ in rooms for thing in room.objects if thing.colour == ""]
    assert plain, "no piece without a main colour in these rooms"
    for _, row in rooms:
        without = {o["id"] for o in row["objects"] if not has_colour(o)}
        for question in row["questions"]:
            assert "  " not in question["question"] and not question["answer"].startswith(("a  ", " "))
            if question["type"] == "colour":
                assert question["answer"] in COLOURS and not without & set(question["hint_objects"])


def test_what_has_no_colour_is_named_by_its_kind_alone():
    chairs = [{"id": n, "category": "chair", "colour": colour} for n, colour in enumerate(("", "red"))]
    assert object_phrase(chairs, chairs[0]) is None
    assert object_phrase(chairs, chairs[1]) == "the red chair"
    assert object_phrase(chairs[:1], chairs[0]) == "the chair"


def test_no_answer_denies_a_colour_that_an_object_may_have_a_little_of(rooms):
    for _, row in rooms:
        vague = {o["category"] for o in row["objects"] if o["colour"] == ""}
        denied = [q["question"] for q in row["questions"] if q["type"] == "existence" and q["answer"] == "no"]
        assert not any(f" {kind}" in text for kind in vague for text in denied)
        opened = {**row, "instance_ids": list(decoded(row["instance_ids"]))}
        for question in ask_boxes(opened, np.random.default_rng(0)):
            if not question["target_objects"]:
                assert question["kind"] not in vague


def test_pictures_are_the_same_each_time_and_without_grain(rooms):
    _, again = make_room("train", 0, 0, 32, 2, "furnished")
    assert again["frames"] == rooms[0][1]["frames"]
    frames = np.concatenate([decoded(row["frames"]) for _, row in rooms]).astype(float)
    ids = np.concatenate([decoded(row["instance_ids"]) for _, row in rooms])
    # Along the ceiling, which is plain, neighbours differ by slow shading alone.
    rows = [frames[n, 0].mean(axis=1) for n in range(len(frames)) if (ids[n, :3] == 0).all()]
    steps = np.concatenate([np.abs(np.diff(row, 2)) for row in rows])
    assert np.median(steps) <= 1.0


def test_furniture_of_a_file_is_used_and_has_rows_of_its_own(tmp_path):
    path = tmp_path / "pieces.safetensors"
    path.write_bytes(FURNITURE_FILE.read_bytes())
    own = load_rooms("test", 1, style="furnished", furniture=path, cache_dir=tmp_path / "cache", **SHAPE)
    packed = load_rooms("test", 1, style="furnished", cache_dir=tmp_path / "cache", **SHAPE)
    assert own["scene_id"] == packed["scene_id"] == ["furnished_test_0_000000"]
    assert own._fingerprint != packed._fingerprint and own["objects"] == packed["objects"]
    with pytest.raises(
        ValueError, match="`furniture` must be None for the style 'plain'. Choose the style 'furnished'."
    ):
        load_rooms("test", 1, furniture=path)
    path.write_bytes(b"chairs")
    with pytest.raises(ValueError, match="must be a file that processing.rooms.furnished.convert made"):
        load_rooms("test", 1, style="furnished", furniture=path, cache_dir=tmp_path / "cache", **SHAPE)


def test_kinds_that_no_theme_names_stand_in_a_hall():
    catalogue = dict(read_catalogue())
    piano = catalogue["piano"][0]
    catalogue["organ"] = (replace(piano, name="organ", category="organ"),)
    catalogue["towel"] = (replace(piano, name="towel", category="towel", place="wall"),)
    more, packed = furnish(catalogue), furnish(read_catalogue())
    assert more.themes["hall"][-1] == "organ:wall" and "towel" in more.small
    assert "hall" not in packed.themes and set(packed.small) < set(more.small)
    rng = np.random.default_rng(0)
    rooms = [build_room(rng, "chair", 0, FURNISHED, more) for _ in range(40)]
    assert any(thing.category == "organ" for room in rooms for thing in room.objects)


def test_rooms_are_made_anew_when_the_meshes_change():
    folder = Path(generate.__file__).parent
    hashed = {file for pattern in generate._MAKERS for file in folder.glob(pattern)}
    assert FURNITURE_FILE in hashed and all(list(folder.glob(pattern)) for pattern in generate._MAKERS)
