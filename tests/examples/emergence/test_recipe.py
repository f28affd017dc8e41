"""Recipes: those of the repository are whole, bad ones are refused."""

import json
from pathlib import Path

import pytest

from examples.emergence import models, results
from examples.emergence.files import RunFiles, describe_run
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
        ({"rows": {"exposure": {"pool": False, "pose": 1.0}}}, "sees no rooms"),
        ({"rows": {"exposure": {"pose": True}}}, "pose must be float"),
        ({"rows": {"exposure": {"scale": 1.0, "pseudo": True}}}, "poses and mean depth need depth in metres"),
        ({"rows": {"exposure": {"pose": 1.0, "target": "grey"}}}, "poses and mean depth need depth in metres"),
        ({"rows": {"exposure": {"depth": 1.0, "pseudo": True}}}, "set `in_questions: 0`"),
        ({"rows": {"exposure": {"pseudo": True, "in_questions": 0}}}, "no loss that reads it"),
        (
            {"rows": {"exposure": {"depth": 1.0, "pseudo": True, "in_questions": 0}}, "image_size": 36},
            "must be a multiple, got 36",
        ),
        ({"rows": {"exposure": {"layers": ["vision.2"]}}}, "`layers` need the weight `teacher`"),
        ({"rows": {"exposure": {"camera_layer": "vision.2"}}}, "`camera_layer` needs"),
        ({"rows": {"exposure": {"teacher": 1.0, "layers": "vision.2"}}}, "layers must be a list of names"),
        ({"rows": {"exposure": {"teacher": 1.0, "layers": ["vision.9"]}}}, "'vision.9' is no hidden state"),
        ({"rows": {"exposure": {"teacher": 1.0, "layers": ["vision.2"] * 2}}}, "each once"),
        ({"rows": {"exposure": {"teacher": 1.0, "layers": ["language.1"]}}}, "so there is no language.1"),
        ({"rows": {"exposure": {"pose": 1.0, "camera_layer": "language.1"}}}, "so there is no language.1"),
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
        ("emergence_terms.yaml", "own"),
        ("emergence_normals.yaml", "own"),
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


def test_entries_that_came_later_leave_earlier_runs_what_they_were():
    """Settings and shared weights of arms without them are those that these recipes had before."""
    study = read_study(REPOSITORY / "examples/recipes/emergence.yaml")
    pools = {
        name: RunFiles(Path("."), name, 1).pool(study.pool_settings(study.rows[name])).stem for name in study.rows
    }
    assert pools["exposure"] == "seed1-a3c0aac1be22" and pools["all"] == "seed1-62e0bb3f3d44"
    own = describe_run(study, study.rows["all"])["row"]
    assert not {"pose", "scale", "layers", "camera_layer", "pseudo", "normals"} & set(own)


def test_every_added_term_is_a_setting(write_study):
    """No arm takes the weights of another one; what is kept as JSON equals what is asked for."""
    base = {"depth": 1.0, "teacher": 1.0, "in_questions": 0}
    added = [{}, {"pose": 1}, {"scale": 1}, {"normals": 1}, {"layers": ["vision.2", "language.2"]}, {"pseudo": True}]
    added += [{"pose": 1, "camera_layer": "vision.4"}]
    rows = {f"arm_{number}": {**base, **entries} for number, entries in enumerate(added)}
    _, study = write_study(rows={"exposure": None, **rows}, pairs=[])
    pools = {RunFiles(Path("."), name, 1).pool(study.pool_settings(study.rows[name])) for name in study.rows}
    assert len(pools) == len(added) + 1
    for name in rows:
        settings = describe_run(study, study.rows[name])
        assert json.loads(json.dumps(settings)) == settings


def test_the_arms_of_the_terms_differ_in_one_thing_from_all():
    study = read_study(REPOSITORY / "examples/recipes/emergence_terms.yaml")
    base = study.rows["all"].settings()
    changed = {
        name: {entry for entry, value in arm.settings().items() if base.get(entry) != value} - {"label", "more_seeds"}
        for name, arm in study.rows.items()
    }
    assert changed["all_pose"] == {"pose"} and changed["all_scale"] == {"scale"}
    assert changed["all_layers"] == {"layers"} and changed["all_pseudo"] == {"pseudo"}
    assert changed["all_pose_scale_layers"] == {"pose", "scale", "layers"}
    assert {pair[1] for pair in study.pairs} == {"all"} and len(study.seeds) == 3
    assert (study.first_test_room, study.test_rooms) == (4500, 1500)
