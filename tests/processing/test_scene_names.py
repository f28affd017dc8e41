"""Names of scenes and frames stay inside their folder; a path is text that a file can have."""

from pathlib import Path

import numpy as np
import pytest

from processing.scene_names import check_names, path_text


@pytest.mark.parametrize(
    "names", [["a", "b"], ("a", "b"), iter(["a", "b"]), np.array(["a", "b"]), {"a": 0, "b": 0}.keys()]
)
def test_any_collection_of_names_is_taken(names):
    assert check_names(names, "scenes") == ["a", "b"]


@pytest.mark.parametrize("names", ["ab", b"ab", None, 5, {"a": 0}])
def test_what_is_no_sequence_of_names_is_told(names):
    with pytest.raises(TypeError, match="`scenes` must be a sequence of names"):
        check_names(names, "scenes")


@pytest.mark.parametrize("name", ["../a", "/a", "", 5, None])
def test_a_name_that_leaves_its_folder_is_told(name):
    with pytest.raises(ValueError, match="`scenes`: a scene id must"):
        check_names(["a", name], "scenes")


def test_a_path_is_text():
    assert path_text("a/b", "folder") == path_text(Path("a/b"), "folder") == "a/b"


@pytest.mark.parametrize("path", [None, 5, b"a", ["a"]])
def test_what_is_no_path_is_told(path):
    with pytest.raises(TypeError, match="`folder` must be a path, got"):
        path_text(path, "folder")


@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800"])
def test_a_path_that_no_file_can_have_is_told(path):
    with pytest.raises(ValueError, match="`folder` must be a path, not empty"):
        path_text(path, "folder")
