"""Results that are collected: of the output folder, and kept in one file."""

import dataclasses
import lzma
from pathlib import Path

import pytest

from examples.emergence import results, summary
from examples.emergence.files import RunFiles, baselines_name, describe_run
from examples.emergence.recipe import read_study
from examples.emergence.scores import METRICS
from examples.emergence.tables import format_tables
from processing.writing import write_json

REPOSITORY = Path(__file__).parents[3]


def test_results_about_other_rooms_are_not_taken(write_study):
    """Neither those of an earlier choice of test rooms, nor a pair whose questions differ."""
    _, study = write_study(first_test_room=2)
    assert results.is_about(study, "test", {"rooms": 7, "first_room": 2})
    assert not results.is_about(study, "test", {"rooms": 7, "first_room": 0})
    assert not results.is_about(study, "test", {"rooms": 8})
    ours = {"hits": dict.fromkeys(METRICS, "10"), "counts": dict.fromkeys(METRICS, "11")}
    theirs = {**ours, "counts": dict.fromkeys(METRICS, "12")}
    with pytest.raises(ValueError, match="other rooms or questions"):
        summary.compare_answers([ours], [theirs])


def test_a_damaged_result_is_named(write_study):
    _, study = write_study()
    files = RunFiles(Path(study.output_dir), "all", 1)
    write_json(files.training, {"settings": describe_run(study, study.rows["all"])})
    files.result("validation").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        results.collect_runs(study, "validation")


@pytest.fixture
def write_run(write_study):
    """`write_run(study, "all", 1)` leaves the files of a run that is done."""

    def write(study, arm: str, seed: int) -> None:
        files = RunFiles(Path(study.output_dir), arm, seed)
        write_json(files.training, {"settings": describe_run(study, study.rows[arm])})
        write_json(files.result("validation"), {"rooms": 7, "first_room": 0, "hits": {"colour": "1" * 7}})

    return write


def test_results_are_kept_in_one_file_that_grows(write_study, write_run, tmp_path):
    _, study = write_study()
    kept, name = tmp_path / "kept", baselines_name(study, "validation")
    write_run(study, "all", 1)
    assert results.keep_results(study, "validation", kept) == 1
    write_run(study, "exposure", 1)
    write_json(Path(study.output_dir) / name, {"colour": {"text": 0.5}})
    part = dataclasses.replace(study, rows={"exposure": study.rows["exposure"]})
    assert results.keep_results(part, "validation", kept) == 1
    assert [path.name for path in kept.iterdir()] == ["validation.json.xz"]

    elsewhere = dataclasses.replace(study, output_dir=str(tmp_path / "elsewhere"), known_results=str(kept))
    assert results.collect_runs(elsewhere, "validation") == results.collect_runs(study, "validation")
    assert len(results.collect_runs(elsewhere, "validation")) == 2
    assert results.find_baselines(elsewhere, "validation") == {"colour": {"text": 0.5}}
    assert results.collect_runs(elsewhere, "test") == []


def test_equal_results_are_equal_bytes_in_any_order(tmp_path):
    runs = [{"row": arm, "seed": seed} for arm in ("all", "none") for seed in (2, 1)]
    written = []
    for name, ordered in (("a", runs), ("b", runs[::-1])):
        path = results.write_archive(tmp_path / name, "test", {"runs": ordered, "baselines": {}})
        written.append(path.read_bytes())
        assert sorted(map(str, results.read_archive(tmp_path / name, "test")["runs"])) == sorted(map(str, runs))
    assert written[0] == written[1]


def test_results_that_earlier_versions_kept_are_taken(write_study, write_run, tmp_path):
    """They lay in a JSON file each."""
    _, study = write_study()
    write_run(study, "all", 2)
    (run,) = results.collect_runs(study, "validation")
    write_json(tmp_path / "kept" / "validation-seed2-all.json", run)
    write_json(tmp_path / "kept" / baselines_name(study, "validation"), {"colour": {}})
    elsewhere = dataclasses.replace(study, output_dir=str(tmp_path / "b"), known_results=str(tmp_path / "kept"))
    assert results.collect_runs(elsewhere, "validation") == [run]
    assert results.find_baselines(elsewhere, "validation") == {"colour": {}}


@pytest.mark.parametrize("content", [b"no archive", lzma.compress(b"{")], ids=["no xz", "no JSON"])
def test_a_damaged_archive_is_named(tmp_path, content):
    (tmp_path / "test.json.xz").write_bytes(content)
    with pytest.raises(ValueError, match=r"test\.json\.xz is damaged"):
        results.read_archive(tmp_path, "test")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "page"),
    [("emergence", "study/results.md"), ("emergence_second", "study/second/results.md")],
)
def test_published_tables_are_made_from_the_kept_results(monkeypatch, recipe, page):
    """Every table of the report stands on the page to the letter, but for pairs that the page leaves out."""
    monkeypatch.chdir(REPOSITORY)
    study = read_study(f"examples/recipes/{recipe}.yaml", output_dir="outputs/not_there")
    runs, baselines = results.collect_runs(study, "test"), results.find_baselines(study, "test")
    parts = format_tables(summary.summarise_study(study, "test", runs, baselines)).strip().split("\n\n")
    published = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    left_out = {part for part in parts if part.removeprefix("Labels saved. ") not in published}
    pairs = {part for before, part in zip(parts, parts[1:], strict=False) if before.startswith("**")}
    pairs |= {part for part in parts if part.startswith("**")}
    assert left_out <= pairs and len(parts) - len(left_out) >= 8
    main = next(part for before, part in zip(parts, parts[1:], strict=False) if before.startswith("**"))
    assert main in published
