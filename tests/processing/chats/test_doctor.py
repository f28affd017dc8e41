"""The doctor of chats: each planted fault is found, once, at its place; whole files have none."""

import json

import pytest
from chat_files import ask, mixed_rows, say, write_media, write_rows
from commanding import run_command

from processing.chats import examine_chats, load_chats
from processing.chats.doctor import KINDS
from processing.chats.held_out import EVALUATED, find_places, list_benchmarks


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("media"))


def found(diagnosis):
    return {(finding.kind, finding.place.rpartition("/")[2]) for finding in diagnosis.findings}


def test_whole_files_have_no_finding(media, tmp_path):
    rows = mixed_rows()
    files = [str(write_rows(tmp_path / "a.jsonl", rows[:3])), str(write_rows(tmp_path / "b.parquet", rows[3:]))]
    diagnosis = examine_chats(files, media)
    assert diagnosis.findings == [] and diagnosis.can_train()
    assert (diagnosis.rows, diagnosis.chats, diagnosis.media) == (6, 6, 6)


def test_every_planted_fault_is_found(media, tmp_path):
    (tmp_path / "broken.mp4").write_bytes((media / "room.mp4").read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    video = {"conversations": ask("<image>\nWhy?")}
    rows = [
        {"id": "a", "video": str(media / "room.mp4"), **video},  # 1
        {"id": "a", "video": str(media / "frames"), **video},  # 2: the id of row 1
        {"id": "b", "video": str(media / "room.mp4"), **video},  # 3: the chat of row 1
        {"video": "no.mp4", **video},  # 4
        {"video": "broken.mp4", "messages": say("<video>How?")},  # 5
        {"video": "empty", "messages": say("<video>Where?")},  # 6
        {"image": "no.png", "messages": say("<image>Where?")},  # 7
        {"video": "no.mp4", "messages": say("<video>Told once?")},  # 8: of a medium that row 4 has
        {"messages": say("<image>?")},  # 9
        {"messages": say("Why?", "")},  # 10
        {"chat": "Why?"},  # 11
    ]
    path = write_rows(tmp_path / "chats.json", rows)
    diagnosis = examine_chats([str(path)])
    assert found(diagnosis) == {
        ("id-twice", "chats.json, row 2"),
        ("duplicate", "chats.json, row 3"),
        ("media-missing", "chats.json, row 4"),
        ("media-unreadable", "chats.json, row 5"),
        ("media-unreadable", "chats.json, row 6"),
        ("media-missing", "chats.json, row 7"),
        ("placeholders", "chats.json, row 9"),
        ("no-answer", "chats.json, row 10"),
        ("row-broken", "chats.json, row 11"),
    }
    assert not diagnosis.can_train() and (diagnosis.rows, diagnosis.chats) == (11, 8)
    (duplicate,) = [finding for finding in diagnosis.findings if finding.kind == "duplicate"]
    assert duplicate.detail == f"the same as {path}, row 1"


def test_what_stops_a_training_is_what_the_table_refuses(tmp_path):
    """A finding on the form of a row is an error of `load_chats` too, and the other way round."""
    rows = [{"messages": say("Why?")}, {"messages": say("<image>?")}]
    path = str(write_rows(tmp_path / "a.jsonl", rows))
    assert found(examine_chats([path])) == {("placeholders", "a.jsonl, line 2")}
    with pytest.raises(ValueError, match="line 2 has more <image> placeholders"):
        load_chats([path], cache_dir=tmp_path / "cache")


def test_broken_files_and_lines(tmp_path):
    lines = write_rows(tmp_path / "a.jsonl", [{"messages": say(word)} for word in ("One?", "Two?", "Three?")])
    lines.write_text(lines.read_text().replace("Two?", 'Two"?'))
    listed = write_rows(tmp_path / "b.json", [{"messages": say("Four?")}, {"messages": say("Five?")}])
    listed.write_text(listed.read_text()[:-30])
    (tmp_path / "c.jsonl").write_text("")
    diagnosis = examine_chats([str(lines), str(listed), str(tmp_path / "c.jsonl")])
    assert found(diagnosis) == {
        ("row-broken", "a.jsonl, line 2"),
        ("file-broken", "b.json"),
        ("file-empty", "c.jsonl"),
    }
    assert not any(finding.place in finding.detail for finding in diagnosis.findings)
    assert diagnosis.chats == 3


def test_a_file_without_any_row_that_can_be_read(tmp_path):
    (tmp_path / "a.json").write_text("nothing")
    diagnosis = examine_chats([str(tmp_path / "a.json")])
    assert found(diagnosis) == {("file-broken", "a.json")} and diagnosis.rows == 0


def test_duplicates_of_another_file(tmp_path):
    one = write_rows(tmp_path / "a.jsonl", [{"messages": say("One?")}, {"messages": say("Two?")}])
    two = write_rows(tmp_path / "b.json", [{"conversations": ask("Two?")}])  # the other dialect
    assert found(examine_chats([str(one), str(two)])) == {("duplicate", "b.json, row 1")}


def test_scenes_of_evaluations(media, tmp_path):
    (tmp_path / "scene0011_01.mp4").write_bytes((media / "room.mp4").read_bytes())
    rows = [
        {"video": "scene0011_01.mp4", "messages": say("<video>\nIs it scene0015_00?")},  # words name nothing
        {"scene_id": "scannet/scene0025_00", "messages": say("Two?")},
        {"id": "scene0025_01_q3", "messages": say("Three?")},
        {"scene_id": "scene0000_00", "messages": say("Four?")},  # of ScanNet's training split
    ]
    diagnosis = examine_chats([str(write_rows(tmp_path / "chats.jsonl", rows))])
    assert diagnosis.can_train()  # it is a note
    details = {finding.place.rpartition("/")[2]: finding.detail for finding in diagnosis.findings}
    validation = "ScanNet validation (ScanRefer, Multi3DRefer, Scan2Cap, ScanQA)"
    assert details == {
        "chats.jsonl, line 1": f"scene0011 is in {validation}; 1 rows name it",
        "chats.jsonl, line 2": f"scene0025 is in {validation}, SQA3D test, VSI-Bench; 2 rows name it",
    }


def test_the_lists_of_scenes_have_the_published_sizes():
    """VSI-Bench and SQA3D's test split lie in ScanNet's validation split."""
    validation, sqa3d, vsi = EVALUATED.values()
    assert (len(validation), len(sqa3d), len(vsi)) == (142, 67, 88)
    assert sqa3d < validation and vsi < validation
    assert list_benchmarks(0) == [] and len(list_benchmarks(704)) == 3


def test_names_of_places():
    names = ["a/scene0011_00/x", "scene0012", "scene00130_00", "myscene0014_00", "_scene0016_01.mp4"]
    assert find_places(names) == {11, 12, 16}


def test_many_findings_are_counted_and_few_are_kept(tmp_path):
    path = write_rows(tmp_path / "chats.jsonl", [{"messages": say("<image>?")}] * 250)
    diagnosis = examine_chats([str(path)])
    assert diagnosis.counts == {"placeholders": 250} and len(diagnosis.findings) == 100
    assert "and 247 more" in diagnosis.as_text()


class TestCommand:
    def test_whole_files(self, media, tmp_path):
        path = write_rows(tmp_path / "chats.jsonl", mixed_rows())
        assert "6 rows, 6 chats" in run_command("doctor", path, "--media", media).stdout

    def test_faults_fail(self, tmp_path):
        path = write_rows(tmp_path / "chats.json", mixed_rows()[:1])
        told = run_command("doctor", path, code=1).stdout
        assert "media-missing (stops a training, 1). Fix: get the file" in told
        report = json.loads(run_command("doctor", path, "--json", code=1).stdout)
        assert report["can_train"] is False and [kind["kind"] for kind in report["kinds"]] == ["media-missing"]
        assert report["kinds"][0]["findings"][0]["place"] == f"{path}, row 1"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--task", "scanqa"), "--task, --split, --without and --mode are of benchmarks"),
            (("folder",), "does not exist"),
        ],
    )
    def test_wrong_words(self, tmp_path, words, message):
        path = write_rows(tmp_path / "chats.json", mixed_rows()[:1])
        run = run_command("doctor", path, *words, code=2 if words[0] == "--task" else 1)
        assert message in run.stderr

    def test_words_of_chats_for_a_folder(self, tmp_path):
        assert "--media takes files of chats" in run_command("doctor", tmp_path, "--media", tmp_path, code=2).stderr


def test_every_kind_has_a_fix():
    assert all(kind.fix and not kind.fix.endswith(".") for kind in KINDS.values())
