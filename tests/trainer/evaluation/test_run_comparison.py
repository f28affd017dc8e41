"""Comparing finished runs: paired intervals, verdicts, what differs, and what is refused."""

import json

import numpy as np
import pytest
from commanding import run_command

from trainer.evaluation import compare_runs
from trainer.evaluation.compare import compare_paired
from trainer.evaluation.metrics.scores import mean_score, summarise

FACTS = {
    "task": "scanqa",
    "split": "val",
    "mode": "rgb_only",
    "protocol": "clean",
    "model": "nano",
    "dtype": "float32",
    "attention_language": "sdpa",
    "samples_digest": "abc",
    "main_score": "em",
    "versions": {"torch": "2.14"},
}
SCENES, QUESTIONS = 40, 10
THEIRS = np.random.default_rng(0).random((SCENES, QUESTIONS)) < 0.5


def write_run(folder, right, **facts):
    """Write what an evaluation with these right answers (scenes, questions) writes."""
    folder.mkdir()
    scenes = [f"scene{number:02d}" for number in range(len(right)) for _ in right[number]]
    values = np.asarray(right, float).ravel()
    kinds = {"em": mean_score(values), "type/em": mean_score(values)}
    scores = {name: summarise(kinds, scenes, jackknife=True) for name in ("clean", "paper")}
    by_scene = {name: found.pop("jackknife") for name, found in scores.items()}
    samples = {f"q{number}": value for number, value in enumerate(values)}
    (folder / "scene_scores.json").write_text(json.dumps({"samples": samples, "protocols": by_scene}))
    (folder / "results.json").write_text(json.dumps({**FACTS, **facts, "scores": scores}))
    return folder


def change(right, scenes, value):
    """Set the first answer of some scenes."""
    changed = right.copy()
    changed[list(scenes), 0] = value
    return changed


@pytest.fixture
def compare(tmp_path):
    """`compare(ours, theirs, tolerance)` gives the row of the score "em" of the second run."""

    def call(ours, theirs, tolerance=1.0):
        first, second = write_run(tmp_path / "theirs", theirs), write_run(tmp_path / "ours", ours)
        found = compare_runs([first, second], tolerance)
        return next(row for row in found.scores if (row.score, row.run) == ("em", "ours"))

    return call


def test_the_interval_is_that_of_answers_paired_by_scene(compare):
    ours = np.random.default_rng(1).random((SCENES, QUESTIONS)) < 0.6
    row = compare(ours, THEIRS)
    paired = compare_paired(ours.sum(1)[None], THEIRS.sum(1)[None], np.full(SCENES, QUESTIONS))
    assert row.difference == pytest.approx(100 * paired.value)
    assert row.interval == pytest.approx(tuple(100 * edge for edge in paired.scene_interval))
    assert row.verdict == "ours better"


def test_pairing_sees_what_the_bands_of_the_runs_do_not(compare):
    few = [scene for scene in range(SCENES) if not THEIRS[scene, 0]][:12]
    row = compare(change(THEIRS, few, True), THEIRS)
    assert row.difference == pytest.approx(3) and row.verdict == "ours better"
    assert row.band[0] < row.value - 3, "the bands of both runs overlap"


def test_a_worse_run_is_said_by_the_name_of_the_better(compare):
    assert compare(np.zeros_like(THEIRS), THEIRS).verdict == "theirs better"


@pytest.mark.parametrize(("tolerance", "verdict"), [(5, "same within 5"), (0.2, "cannot tell")])
def test_a_small_difference_is_the_same_within_a_tolerance(compare, tolerance, verdict):
    row = compare(change(change(THEIRS, range(3), True), range(3, 6), False), THEIRS, tolerance)
    assert row.difference != 0 and row.verdict == verdict


def test_the_same_answers_are_the_same_in_every_scene(compare):
    row = compare(THEIRS, THEIRS, 0)
    assert row.difference == 0 and row.verdict == "same in every scene"


def test_too_few_scenes_tell_nothing(compare):
    row = compare(~THEIRS[:4], THEIRS[:4])
    assert row.interval is None and row.verdict == "cannot tell: too few scenes"


def test_several_runs_are_one_table_with_what_differs(tmp_path):
    better = np.ones_like(THEIRS)
    folders = [
        write_run(tmp_path / "sdpa", THEIRS),
        write_run(tmp_path / "eager", THEIRS, attention_language="eager", versions={"torch": "2.13"}),
        write_run(tmp_path / "tuned", better, model="tuned", kernels="torch"),
    ]
    output = tmp_path / "compared.json"
    text = run_command("compare", *folders, "--output", output).stdout
    for row in (
        "| attention_language | sdpa         | eager        | sdpa  ",
        "| torch              | 2.14         | 2.13         | 2.14  ",
        "| kernels            | not recorded | not recorded | torch ",
        "tuned better",
        "same in every scene",
    ):
        assert row in text
    assert "type/em" not in text and f"tuned alone has {(~THEIRS).sum()} answers right, sdpa alone 0." in text
    found = json.loads(output.read_text())
    assert [row["run"] for row in found["scores"] if row["score"] == "type/em"] == ["sdpa", "eager", "tuned"]
    assert found["num_scenes"] == SCENES and found["num_samples"] == SCENES * QUESTIONS


@pytest.mark.parametrize(("key", "value"), [("mode", "proposals"), ("protocol", "paper"), ("samples_digest", "x")])
def test_other_questions_are_refused_unless_the_caller_names_them(tmp_path, key, value):
    folders = [write_run(tmp_path / "a", THEIRS), write_run(tmp_path / "b", THEIRS, **{key: value})]
    told = rf"a and b were not asked the same \({key}: .*, {value}\).*--differing {key}"
    with pytest.raises(ValueError, match=told):
        compare_runs(folders)
    assert f"name what differs: --differing {key}" in run_command("compare", *folders, code=1).stderr
    assert compare_runs(folders, differing=[key]).differences[key] == [FACTS[key], value]


def test_other_samples_and_tasks_are_refused_in_any_case(tmp_path):
    first, fewer = write_run(tmp_path / "a", THEIRS), write_run(tmp_path / "b", THEIRS[:-1])
    with pytest.raises(ValueError, match="b lacks 10 samples of a, and has 0 others, such as 'q390'"):
        compare_runs([first, fewer])
    with pytest.raises(ValueError, match="a is of scanqa, c of sqa3d: compare runs of one task"):
        compare_runs([first, write_run(tmp_path / "c", THEIRS, task="sqa3d")])


def test_scores_by_scene_of_another_scoring_are_refused(tmp_path):
    first, other = write_run(tmp_path / "a", THEIRS), write_run(tmp_path / "b", ~THEIRS)
    (first / "scene_scores.json").write_bytes((other / "scene_scores.json").read_bytes())
    with pytest.raises(ValueError, match="not of this run .*em is .*Run the same `ide3d evaluate` command again"):
        compare_runs([first, other])


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    (tmp_path / "x").mkdir(), (tmp_path / "y").mkdir()
    folders = [write_run(tmp_path / "x" / "run", THEIRS), write_run(tmp_path / "y" / "run", THEIRS)]
    assert list(compare_runs(folders).runs) == [str(folder) for folder in folders]
