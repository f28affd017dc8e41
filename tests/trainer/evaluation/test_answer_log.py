"""Answers survive a kill, and never mix with those of another run."""

import json

import pytest

from trainer.evaluation.answer_log import AnswerLog

IDENTITY = {"model_revision": "sha256:1", "prompt_digest": "abc", "num_frames": 8}


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


def test_what_nobody_wrote_is_refused(tmp_path):
    log = AnswerLog(tmp_path, IDENTITY)
    log.append(rows("a", "a"))
    with pytest.raises(ValueError, match="'a' comes twice"):
        log.read()
    log.file.write_text("not json\n" + json.dumps(rows("a")[0]) + "\n")
    with pytest.raises(ValueError, match="line 1 is no JSON"):
        log.read()
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"holds answers, but no `run\.json`"):
        AnswerLog(tmp_path, IDENTITY)
