"""Answers survive a kill, and never mix with those of another run."""

import json
import re

import pytest

from trainer.evaluation.answer_log import AnswerLog

IDENTITY = {
    "model_revision": "sha256:1",
    "prompt_digest": "abc",
    "num_frames": 8,
    "attention_vision": "sdpa",
    "attention_language": "sdpa",
    "device": "cpu",
    "decoder": None,
    "kernels": "torch",
}


def rows(*names):
    return [{"id": name, "text": f"answer {name}"} for name in names]


def test_answers_come_back_by_id_from_all_processes(tmp_path):
    AnswerLog(tmp_path, IDENTITY, rank=0).append(rows("a", "b"))
    AnswerLog(tmp_path, IDENTITY, rank=1).append(rows("c"))
    assert sorted(AnswerLog(tmp_path, IDENTITY).read()) == ["a", "b", "c"]


def test_a_line_cut_at_any_byte_is_asked_again(tmp_path):
    whole = "".join(json.dumps(row) + "\n" for row in rows("a", "b", "ü"))
    lines = whole.encode()
    for cut in range(len(lines) + 1):
        folder = tmp_path / str(cut)
        AnswerLog(folder, IDENTITY)
        (folder / "answers.00000.jsonl").write_bytes(lines[:cut])
        log = AnswerLog(folder, IDENTITY)
        known = list(log.read())
        assert known == ["a", "b", "ü"][: lines[:cut].count(b"\n")]
        log.append(row for row in rows("a", "b", "ü") if row["id"] not in known)
        assert log.file.read_text() == whole


@pytest.mark.parametrize("key", IDENTITY)
def test_another_run_is_refused_and_the_change_is_named(tmp_path, key):
    AnswerLog(tmp_path, IDENTITY).append(rows("a"))
    with pytest.raises(ValueError, match=rf"answers of another run. Changed:\n  {key}: .*, now 'other'"):
        AnswerLog(tmp_path, {**IDENTITY, key: "other"})
    assert list(AnswerLog(tmp_path, IDENTITY).read()) == ["a"]


def test_facts_that_an_older_version_did_not_record_are_refused_as_unknown(tmp_path):
    known = {key: value for key, value in IDENTITY.items() if key not in ("decoder", "attention_language")}
    AnswerLog(tmp_path, known).append(rows("a"))
    told = "Changed:\n  attention_language: not recorded, now 'sdpa'\n  decoder: not recorded, now None\n"
    with pytest.raises(ValueError, match=told):
        AnswerLog(tmp_path, IDENTITY)


def test_other_libraries_are_warned_of_once_and_recorded_with_their_first_answer(tmp_path, caplog):
    old, new = {"torch": "2.13", "av": "18.0"}, {"torch": "2.14", "numpy": "2.4"}
    AnswerLog(tmp_path, IDENTITY, versions=old).append(rows("a"))
    AnswerLog(tmp_path, IDENTITY, rank=1, versions=new).close()
    assert not caplog.records, "one process says it"
    log = AnswerLog(tmp_path, IDENTITY, versions=new)
    assert len(caplog.records) == 1
    told = "av 18.0, now not recorded, numpy not recorded, now 2.4, torch 2.13, now 2.14"
    assert told in caplog.text
    assert log.list_versions() == [old], "nothing was answered with the new ones yet"
    log.append(rows("b"))
    assert log.list_versions() == [old, new]
    log.close(), caplog.clear()
    log = AnswerLog(tmp_path, IDENTITY, versions=new)
    log.append(rows("c"))
    assert not caplog.records and log.list_versions() == [old, new]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "a", "text"', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"id": "\x80"}', "is no JSON"),
        ('["a", "text"]', 'must be a JSON object with the "id" of a sample'),
        ('{"text": "words"}', 'must be a JSON object with the "id" of a sample'),
        ('{"id": 7}', 'must be a JSON object with the "id" of a sample'),
        ('{"id": "b"}', "the answer to 'b' comes twice"),
        ('{"id": "strange"}', "'strange' is unknown"),
    ],
)
def test_lines_that_nobody_wrote_are_named(tmp_path, line, told):
    log = AnswerLog(tmp_path, IDENTITY)
    log.append(rows("b"))
    with log.file.open("ab") as stream:
        stream.write(line.encode("latin1") + b"\n")
    with pytest.raises(ValueError, match=f"answers.00000.jsonl, line 2: {re.escape(told)}.*Delete the line"):
        log.read(lambda row: None if row["id"] in ("a", "b") else f"{row['id']!r} is unknown")


@pytest.mark.parametrize(
    "content", ['{"model_revision": "sha', "[1, 2]", "\x80", "", "7", '{"versions": 7}', '{"later_versions": [7]}']
)
def test_a_run_file_that_nobody_wrote_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=r"run\.json is not what a run writes: expected one JSON object"):
        AnswerLog(tmp_path, IDENTITY)


def test_answers_without_their_run_are_refused(tmp_path):
    AnswerLog(tmp_path, IDENTITY).append(rows("a"))
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"holds answers, but no `run\.json`"):
        AnswerLog(tmp_path, IDENTITY)


def test_a_second_run_is_refused_while_the_first_writes(tmp_path):
    first, other_rank = AnswerLog(tmp_path, IDENTITY), AnswerLog(tmp_path, IDENTITY, rank=1)
    with first.file.open("a") as stream:
        stream.write('{"id": "a"')  # what the first is writing is not cut off
    with pytest.raises(BlockingIOError, match="answers.00000.jsonl is being written by another evaluation"):
        AnswerLog(tmp_path, IDENTITY)
    assert first.file.read_text() == '{"id": "a"'
    first.close(), other_rank.close()
    AnswerLog(tmp_path, IDENTITY).close()
