"""The demo in miniature."""

import json
import sys
from pathlib import Path

import pytest

from examples.demo import __main__ as demo
from examples.demo import parts


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestMiniature:
    @pytest.fixture
    def run(self, tiny_recipe, tiny_export, tmp_path, monkeypatch):
        """Runs the demo from a folder that is not the repository's; gives its exit code."""
        lessons = {"lessons": ["view=1", "word=1", "place=1", "region=1"], "naming_steps": 0, "reading_steps": 0}
        recipe = tiny_recipe(room_style="loft", model_name_or_path="nowhere", mixture_batches="grouped", **lessons)
        monkeypatch.setattr(parts, "NUM_TEST_ROOMS", 3)
        monkeypatch.setattr(parts, "NUM_BASELINE_ROOMS", 4)
        monkeypatch.setattr(demo, "RECIPE", recipe)
        monkeypatch.setattr(demo, "CHECKPOINT", tiny_export)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

        def call(*words: str):
            monkeypatch.setattr(sys, "argv", ["demo", "--output_dir", "out", *words])
            with pytest.raises(SystemExit) as end:
                demo.main()
            return end.value.code

        return call

    @pytest.mark.slow
    def test_the_whole_path(self, run, monkeypatch):
        code, folder = run(), Path("out")
        summary = json.loads((folder / "summary.json").read_text())
        assert code == (0 if summary["passed"] else 1)
        assert summary["passed"] == all(check["passed"] for check in summary["checks"])
        assert summary["steps"] == 2 and summary["parameters"]["export"] < summary["parameters"]["training"]
        assert summary["rooms"]["style"] == "loft"
        for part, names in (("shipped", {"model"}), ("fine_tuned", {"before", "after"})):
            asked = json.loads((folder / "inputs" / part / "tasks.json").read_text())
            assert asked[0]["name"].startswith("loft_test_" if part == "fine_tuned" else "furnished_test_")
            expected = {item["id"] for scene in asked for item in [*scene["questions"], *scene["requests"]]}
            for name in {"shipped"} if part == "shipped" else names:
                answers = read_lines(folder / f"answers_{name}.jsonl")
                assert {answer["id"] for answer in answers} == expected and len(answers) == len(expected)
            assert len(list((folder / "scenes" / part).glob("*.json"))) == len(asked)
            assert all(names <= set(row) for row in [*summary[part]["scores"], summary[part]["grounding"]])
        assert not (folder / "nowhere").exists()
        losses = set().union(*json.loads((folder / "log_history.json").read_text()))
        terms = ("language", "depth", "cross_view_depth", "distillation")
        assert {f"loss_{term}" for term in terms} <= losses
        assert "accuracy" in (folder / "export" / "README.md").read_text()
        assert (folder / "report.html").stat().st_size > 10_000 and (folder / "picture.png").is_file()

        # Again: it goes on from the last checkpoint, where nothing is left to learn.
        weights = (folder / "export" / "model.safetensors").read_bytes()
        monkeypatch.setattr(parts, "ask_stranger", lambda model, inputs, answers: read_lines(answers))
        assert run() == code
        assert (folder / "export" / "model.safetensors").read_bytes() == weights

    def test_a_missing_model_is_named(self, run, monkeypatch, tmp_path):
        monkeypatch.setattr(demo, "CHECKPOINT", tmp_path / "no_model")
        assert "no_model has no config.json" in run()
