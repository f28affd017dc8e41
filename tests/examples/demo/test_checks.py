"""Checks of the demo that fail."""

import json

import pytest

from examples.demo import checks as demo_checks

AHEAD = "is ahead of predictors without sight"


class TestChecks:
    @pytest.fixture
    def good(self, monkeypatch):
        monkeypatch.setattr(demo_checks, "MUST_BE_AHEAD", ("existence", "colour", "direction"))
        baselines = {"n": 900, "majority": 0.5, "text": 0.4, "mean_row": 0.45, "bottom_row": None}
        shipped = [{"type": kind, "model": 0.6, **baselines} for kind in demo_checks.MUST_BE_AHEAD]
        tuned = [{"type": kind, "before": 0.4, "after": 0.6, **baselines} for kind in demo_checks.MUST_BE_AHEAD]
        mean = {"before": 0.4, "after": 0.6, "gain": 0.2, "standard_error": 0.01}
        found = {"n": 900, "model": 0.5, "after": 0.5, "chance": 0.1}
        return (
            {"scores": shipped, "grounding": dict(found)},
            {"scores": tuned, "grounding": dict(found), "mean": mean},
            {"abs_rel": 0.1, "abs_rel_constant": 0.3},
        )

    @staticmethod
    def failed(checks: list[dict]) -> list[str]:
        return [check["name"] for check in checks if not check["passed"]]

    def test_all_pass(self, good):
        checks = demo_checks.check_demo(*good)
        assert self.failed(checks) == [] and len(checks) == 2 * len(demo_checks.MUST_BE_AHEAD) + 4
        assert all(check["detail"] for check in checks)
        json.dumps(checks)

    @pytest.mark.parametrize("baseline", ["majority", "text", "mean_row"])
    @pytest.mark.parametrize(("part", "words"), [(0, "as shipped"), (1, "after fine-tuning")])
    def test_level_with_words_alone_fails(self, good, baseline, part, words):
        entry = good[part]["scores"][0]
        entry[baseline] = 0.6
        assert self.failed(demo_checks.check_demo(*good)) == [
            f"{words}, {entry['type']} is ahead of predictors without sight"
        ]

    @pytest.mark.parametrize(("part", "words"), [(0, "as shipped"), (1, "after fine-tuning")])
    def test_finding_by_chance_fails(self, good, part, words):
        good[part]["grounding"]["chance"] = 0.49
        assert self.failed(demo_checks.check_demo(*good)) == [f"{words}, finding objects beats chance"]

    def test_a_lead_within_noise_fails(self, good):
        entry = good[0]["scores"][0]
        entry |= {"n": 50, "majority": 0.59}
        assert self.failed(demo_checks.check_demo(*good)) == [
            f"as shipped, {entry['type']} is ahead of predictors without sight"
        ]

    def test_nothing_measured_fails(self, good):
        scores = good[1]["scores"]
        missing = scores.pop()["type"]
        scores[0]["after"] = float("nan")
        failed = self.failed(demo_checks.check_demo(*good))
        kinds = (missing, scores[0]["type"])
        assert sorted(failed) == sorted(f"after fine-tuning, {kind} {AHEAD}" for kind in kinds)

    @pytest.mark.parametrize("change", [{"gain": -0.1}, {"gain": 0.0, "standard_error": 0.0}, {"standard_error": 0.1}])
    def test_no_gain_beyond_noise_fails(self, good, change):
        good[1]["mean"].update(change)
        assert self.failed(demo_checks.check_demo(*good)) == ["fine-tuning helps"]

    def test_no_better_than_a_constant_fails(self, good):
        good[2]["abs_rel"] = 0.3
        assert self.failed(demo_checks.check_demo(*good)) == ["validator beats constant depth"]
