"""Names of scenes and frames stay inside their folder."""

import numpy as np
import pytest

from processing.scene_names import check_names


@pytest.mark.parametrize(
    "names", [["a", "b"], ("a", "b"), iter(["a", "b"]), np.array(["a", "b"]), {"a": 0, "b": 0}.keys()]
)
def test_any_collection_of_names_is_taken(names):
    assert check_names(names, "scenes") == ["a", "b"]


@pytest.mark.parametrize("names", ["ab", b"ab", None, 5, {"a": 0}, ["a", 5], ["a", None]])
def test_what_is_no_list_of_names_is_told(names):
    with pytest.raises(TypeError, match="`scenes` must be a list of strings"):
        check_names(names, "scenes")


def test_a_set_has_no_order():
    assert sorted(check_names({"a", "b"}, "scenes")) == ["a", "b"]
    with pytest.raises(TypeError, match="`frame_names` must be a list of strings"):
        check_names({"a", "b"}, "frame_names", "name of a frame", is_ordered=True)


@pytest.mark.parametrize("name", ["../a", "/a", ""])
def test_a_name_that_leaves_its_folder_is_told(name):
    with pytest.raises(ValueError, match="`scenes`: a scene id must"):
        check_names(["a", name], "scenes")
