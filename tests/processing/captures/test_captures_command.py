"""`ide3d captures`: one line for each capture, and an exit code."""

import json

import numpy as np
import pytest
from capture_rooms import look
from capture_writers import matrix_text, write_scannet, write_sens
from commanding import run_command


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder, room = tmp_path_factory.mktemp("scans"), look(step=0.001)
    write_scannet(folder / "a", room)
    write_sens(folder / "b", room)
    return folder


def test_it_says_what_it_found(scans):
    told = run_command("captures", scans).stdout
    assert f"{scans / 'a'}: scannet (folders color, depth, pose, intrinsic)\n" in told
    assert told.count("  4 frames of 72 x 100, depth of 72 x 100, 4 poses, intrinsics, 4 frames checked\n") == 2


def test_json_holds_the_same(scans):
    states = json.loads(run_command("captures", scans, "--json", "--num-frames", "2").stdout)
    assert [(state["format"], state["num_frames"], state["num_checked"]) for state in states] == [
        ("scannet", 4, 2),
        ("sens", 4, 2),
    ]


def test_what_cannot_be_used_is_told_and_fails(scans, tmp_path):
    room = look(step=0.001)
    folder = write_scannet(tmp_path / "c", room)
    for index, pose in enumerate(room.camera_to_world):
        (folder / "pose" / f"{index}.txt").write_text(matrix_text(np.linalg.inv(pose)))
    told = run_command("captures", folder, code=1).stdout
    assert "cannot be used: `depth`, `intrinsics` and `camera_to_world` do not belong together" in told
    (tmp_path / "empty").mkdir()
    assert "holds no capture of a known format" in run_command("captures", tmp_path / "empty", code=1).stderr
