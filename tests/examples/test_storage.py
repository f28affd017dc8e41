"""Files that say what is wrong with them."""

import pytest

from examples.storage import load_json


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text('{"a": 1}')
    assert load_json(path, "Run it again.") == {"a": 1}
    path.write_text("{")
    with pytest.raises(ValueError, match=r"numbers\.json is damaged: .* Run it again\."):
        load_json(path, "Run it again.")
