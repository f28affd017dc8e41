"""Differences of boxes in words between two ways of training, question by question."""

import json

import pytest


def result(errors, kinds=None):
    """Return answers to one question in each of the rooms, with these centre errors in metres; None says nothing."""
    answers = [
        {
            "scene_id": f"room {index}",
            "type": "one" if kinds is None else kinds[index],
            "question": "Locate the red chair in 3D.",
            "truth": "[]",
            "acc@0.25": float(error is not None and error <= 0.2),
            "center_error": error,
        }
        for index, error in enumerate(errors)
    ]
    return {"answers": answers}


def test_shares_and_differences_are_those_of_the_answers(example, tmp_path):
    paths = {}
    for name, errors in {"a": [0.0, 0.4, 0.9, None], "b": [0.1, 0.6, 2.0, 2.0]}.items():
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(result(errors)))
    output = tmp_path / "differences.json"
    words = ["--ours", str(paths["a"]), "--theirs", str(paths["b"]), "--output", str(output)]
    found = example("compare_room_boxes").main(words)
    assert found == json.loads(output.read_text())
    assert (found["questions"], found["rooms"]) == (4, 4)
    near = found["centre within 0.5 m"]
    assert (near["ours"], near["theirs"], near["difference"]) == ([50.0], [25.0], 25.0)
    assert found["centre within 1.0 m"]["difference"] == 25.0 and found["acc@0.25"]["difference"] == 0.0
    assert not near["is_established"] and near["seed_interval"] is None
    # Over the three questions that both answered with a box.
    assert found["center_error"]["ours"] == pytest.approx([1.3 / 3])
    assert found["center_error"]["theirs"] == pytest.approx([2.7 / 3])


def test_the_table_has_every_measure(example):
    compare = example("compare_room_boxes")
    found = compare.compare([result([0.1, 0.1])] * 2, [result([2.0, 0.1])] * 2)
    table = " ".join(compare.format_comparison(found).split())
    assert "| centre within 0.5 m | 100.0, 100.0 | 50.0, 50.0 | +50.0 |" in table
    assert "| centre error, metres | 0.10, 0.10 | 1.05, 1.05 | -0.95 |" in table


def test_only_questions_of_one_object_count(example):
    kinds = ["one", "several"]
    found = example("compare_room_boxes").compare([result([0.1, 0.1], kinds)], [result([0.1, 9.0], kinds)])
    assert found["questions"] == 1 and found["centre within 0.5 m"]["difference"] == 0


def test_runs_of_different_questions_are_refused(example):
    compare = example("compare_room_boxes").compare
    with pytest.raises(ValueError, match="different questions"):
        compare([result([0.1])], [result([0.1, 0.2])])
    with pytest.raises(ValueError, match="one a seed"):
        compare([result([0.1])] * 2, [result([0.1])])
