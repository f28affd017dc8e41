"""`regions_from_rgb.py` compares two models request by request, and measures a model with its own settings."""

import numpy as np
import pytest
from benchmarks.regions_from_rgb import compare, use_settings

from processing.proposals import clusters
from trainer.session import finding


def room(rights, *, is_there=True, at_truth=None):
    """Requests of a room, and one click."""
    requests = [{"right": right, "right_with_true": True, "is_there": is_there} for right in rights]
    return [*requests, {"tokens_at_truth": at_truth, "truth_covered": 0.5}]


def test_differences_are_paired_by_request_and_leave_out_what_one_model_has_not():
    ours = [room([True, True], at_truth=0.75), *(room([True, False], at_truth=None) for _ in range(5))]
    theirs = [room([True, False], at_truth=0.5), *(room([False, False], at_truth=0.5) for _ in range(5))]
    found = compare(ours, theirs)
    assert found["found_regions"]["difference"] == found["found_where_there_is_one"]["difference"] == 50
    low, high = found["found_regions"]["band"]
    assert low < 50 < high  # all rooms agree: the band says what six rooms leave open
    assert found["true_regions"] == {**found["true_regions"], "count": 12, "difference": 0}
    assert found["tokens_at_truth"] == {"count": 1, "difference": 25, "band": [None, None]}
    assert found["truth_covered"]["count"] == 6


def test_requests_where_nothing_is_meant_do_not_count_as_found():
    found = compare([room([True], is_there=False)] * 5, [room([False], is_there=False)] * 5)
    assert found["found_regions"]["difference"] == 100 and "found_where_there_is_one" not in found


def test_answers_to_other_requests_are_refused():
    with pytest.raises(ValueError, match="different requests"):
        compare([room([True])], [room([True], is_there=False)])


def test_settings_are_those_that_were_printed_best_first(monkeypatch):
    monkeypatch.setattr(clusters, "OBJECTNESS", clusters.OBJECTNESS)
    for name in ("OBJECTNESS_WEIGHT", "NO_OBJECT_MARGIN", "SEVERAL_MARGIN"):
        monkeypatch.setattr(finding, name, getattr(finding, name))
    use_settings({"OBJECTNESS": np.eye(6).tolist()})
    best = {"OBJECTNESS_WEIGHT": 0.75, "NO_OBJECT_MARGIN": 0.1, "SEVERAL_MARGIN": 0.02, "right": 60.0}
    use_settings([best, {**best, "OBJECTNESS_WEIGHT": 0.0}])
    assert np.array_equal(clusters.objectness(np.zeros((1, 5))), [1.0])
    assert (finding.OBJECTNESS_WEIGHT, finding.NO_OBJECT_MARGIN, finding.SEVERAL_MARGIN) == (0.75, 0.1, 0.02)
    assert not hasattr(finding, "right")
