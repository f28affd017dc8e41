"""A path is text that a file can have."""

from pathlib import Path

import pytest

from processing.argument_rules import as_path, path_text


def test_a_path_is_text():
    assert path_text("a/b", "folder") == path_text(Path("a/b"), "folder") == "a/b"


@pytest.mark.parametrize("path", [None, 5, b"a", ["a"]])
def test_what_is_no_path_is_told(path):
    with pytest.raises(TypeError, match="`folder` must be a path, as text or `pathlib.Path`, got"):
        path_text(path, "folder")


@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800"])
def test_a_path_that_no_file_can_have_is_told(path):
    with pytest.raises(ValueError, match="`folder` must be a path, not empty"):
        path_text(path, "folder")


def test_a_path_need_not_lead_anywhere_but_can_be_followed(tmp_path):
    assert as_path(str(tmp_path / "absent" / "folder"), "folder") == tmp_path / "absent" / "folder"
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ValueError, match="`folder` must be a path that can be followed, got .*circle"):
        as_path(tmp_path / "circle", "folder")
