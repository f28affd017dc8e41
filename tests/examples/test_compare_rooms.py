"""examples/compare_rooms.py: differences of two models, paired by question."""

import json

import pytest


def result(*rights: int) -> dict:
    """Three questions in each of two rooms; `rights` says which are answered rightly."""
    kinds = (("colour", "word"), ("colour", "word"), ("distance", "region"))
    entries = [(f"room {room}", *kind, f"question {number}?") for room in (0, 1) for number, kind in enumerate(kinds)]
    keys = ("scene_id", "type", "reference", "question")
    return {
        "answers": [
            {**dict(zip(keys, entry, strict=True)), "is_right": bool(right)}
            for entry, right in zip(entries, rights, strict=True)
        ]
    }


def test_each_type_and_all(example):
    colour, distance, everything = example("compare_rooms").compare(result(1, 0, 1, 1, 0, 1), result(1, 1, 0, 1, 0, 1))
    assert (colour["type"], colour["reference"], colour["n"]) == ("colour", "word", 4)
    assert (colour["before"], colour["after"], colour["difference"]) == (50, 75, 25)
    assert (distance["before"], distance["after"], distance["difference"]) == (100, 50, -50)
    assert everything["n"] == 6 and everything["difference"] == pytest.approx(0)
    assert everything["band"] is None  # of two rooms


def test_other_questions_are_refused(example):
    other = result(1, 1, 1, 1, 1, 1)
    other["answers"][3]["question"] = "another?"
    with pytest.raises(ValueError, match="different questions"):
        example("compare_rooms").compare(result(1, 1, 1, 1, 1, 1), other)


def test_command(example, tmp_path, caplog):
    for name, rights in {"before": (0, 0, 0, 0, 0, 0), "after": (1, 1, 1, 1, 1, 1)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result(*rights)))
    with caplog.at_level("INFO"):
        example("compare_rooms").main([str(tmp_path / "before.json"), str(tmp_path / "after.json")])
    assert "+100.0" in caplog.text
