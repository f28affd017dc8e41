"""Files that are whole or not there."""

import pytest

from examples.storage import load_json, whole_file, write_json


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(RuntimeError), whole_file(path) as unfinished:
        unfinished.write_text("half of")
        raise RuntimeError
    assert load_json(path, "") == {"a": 1}


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"numbers\.json is damaged: .* Run it again\."):
        load_json(path, "Run it again.")
