"""Recipes: those of the repository are whole, bad ones are refused."""

from pathlib import Path

import pytest

from examples.emergence import models, results
from examples.emergence.recipe import read_study

REPOSITORY = Path(__file__).parents[3]
PHASE = {"rooms": 1, "learning_rate": 1e-3, "vision_learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": None}, "`rows` must map names"),
        ({"rows": {"exposure": {"dept": 1.0}}}, "row exposure has unknown entries .*dept"),
        ({"rows": {"exposure": {"depth": "much"}}}, "depth must be float, got 'much'"),
        ({"rows": {"exposure": {"target": "colour"}}}, "row exposure: `target` must be one of"),
        ({"rows": {"exposure": {"pool": False, "depth": 1.0}}}, "sees no rooms"),
        ({"rows": {"exposure": {"target": "grey", "teacher": 1.0}}}, "other views need depth, and so does a teacher"),
        (
            {"rows": {"exposure": {"target": "grey", "cross_view": 1.0}}, "teacher_camera": "own"},
            "other views need depth",
        ),
        ({"rows": {"exposure": {"target": "grey", "depth": 1.0}}}, "have depth alone"),
        ({"rows": {"exposure": {"labelled_rooms": 9}}}, "labels more than the 8 rooms"),
        ({"control": "nothing"}, "`control` must be one of the rows"),
        ({"pairs": [["all", "nothing"]]}, "`pairs` names .*nothing"),
        ({"seeds": "1, 2"}, "seeds must be a list"),
        ({"seeds": [1.5]}, "seeds must be a list"),
        ({"pool": {"steps": 2}}, "pool misses learning_rate, rooms"),
        ({"questions": {"steps": 2, **PHASE}}, "`views` must be at least 1"),
        ({"num_rooms": "many"}, "num_rooms must be int"),
        ({"teacher_camera": "last"}, "`teacher_camera` must be one of .*'last'"),
        ({"reading": None}, "reading must hold entries"),
        ({"colour": 1}, "unknown entries .*colour"),
    ],
)
def test_a_bad_recipe_is_refused(write_study, changes, message):
    with pytest.raises(ValueError, match=message):
        write_study(**changes)


def test_files_that_are_no_recipe_are_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("- a list")
    with pytest.raises(ValueError, match="must hold lines"):
        read_study(path)
    path.write_text("rows: {")
    with pytest.raises(ValueError, match="is no YAML"):
        read_study(path)


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("emergence.yaml", "own"),
        ("emergence_second.yaml", "first"),
        ("emergence_first.yaml", "first"),
        ("emergence_small.yaml", "own"),
    ],
)
def test_shipped_recipes_are_whole(caplog, monkeypatch, name, camera):
    """Each has the teacher that its protocol says, and takes every result that lies in the folder it names."""
    monkeypatch.chdir(REPOSITORY)
    study = read_study(Path("examples/recipes") / name, output_dir="outputs/not_there")
    assert study.control in study.rows and "all" in study.rows
    assert models.build_teacher(study).camera == camera
    if study.known_results is not None:
        known = results.read_archive(Path(study.known_results), "test")["runs"]
        assert len(results.collect_runs(study, "test")) == len(known) > 0
        assert results.find_baselines(study, "test")["position_50"]["mask"] > 0.3
        assert not caplog.records
