"""Rows of files of chats: JSON lines, lists and parquet give the same rows, and faults name their place."""

import json

import pytest
from chat_files import ask, say, write_rows

from processing.chats import files
from processing.chats.files import read_rows

ROWS = [
    {"id": "a", "video": "a.mp4", "conversations": ask('<video>\nWhat [is} "this\\"?', "Ein Stuhl, ü, 椅子.")},
    {"id": "b", "video": "b.mp4", "conversations": ask("<video>\nWhy?")},
    {"id": "c", "video": "c.mp4", "conversations": [*ask("<video>\nOne?"), *ask("Two?")]},
]


def rows_of(path, **options):
    return [row for _, row in read_rows(path, **options)]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_every_kind_gives_the_rows(tmp_path, suffix):
    assert rows_of(write_rows(tmp_path / f"chats{suffix}", ROWS)) == ROWS


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_list_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    """Also where a piece ends inside a letter of several bytes, an escape or a number."""
    monkeypatch.setattr(files, "_CHUNK", chunk)
    path = tmp_path / "chats.json"
    path.write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8-sig")
    assert rows_of(path) == ROWS


def test_the_content_tells_lines_from_a_list(tmp_path):
    lines = write_rows(tmp_path / "a.jsonl", ROWS).rename(tmp_path / "lines.json")
    listed = write_rows(tmp_path / "b.json", ROWS).rename(tmp_path / "list.jsonl")
    assert rows_of(lines) == rows_of(listed) == ROWS


def test_keys_that_other_rows_of_a_parquet_file_have_are_left_out(tmp_path):
    parts = [{"type": "video", "path": "a.mp4"}, {"type": "text", "text": "Why?"}]
    rows = [{"messages": [{"role": "user", "content": parts}]}, {"image": "b.png", "messages": [{"role": "user"}]}]
    assert rows_of(write_rows(tmp_path / "chats.parquet", rows)) == rows


def test_places(tmp_path):
    lines = write_rows(tmp_path / "chats.jsonl", ROWS)
    lines.write_text("\n" + lines.read_text())
    assert [where for where, _ in read_rows(lines)] == [f"{lines}, line {number}" for number in (2, 3, 4)]
    listed = write_rows(tmp_path / "chats.json", ROWS)
    assert [where for where, _ in read_rows(listed)] == [f"{listed}, row {number}" for number in (1, 2, 3)]


def test_a_list_is_not_read_whole(tmp_path, monkeypatch):
    """The first row comes before the end of the file is looked at: here it is broken."""
    monkeypatch.setattr(files, "_CHUNK", 64)
    path = write_rows(tmp_path / "chats.json", ROWS)
    path.write_text(path.read_text()[:-40])
    rows = read_rows(path)
    assert next(rows)[1] == ROWS[0] and next(rows)[1] == ROWS[1]
    with pytest.raises(ValueError, match="row 3 is cut off or broken"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[1]", "row 1 must be an object with a chat, it begins with '1'"),
        ("a.json", b'[{"a": 1} {"b": 2}]', "expected ',', got '{'"),
        ("a.json", b'[{"a": 1}', "expected ',', it is cut off"),
        ("a.json", b'[{"a": 1}] x', "goes on behind the end of its list"),
        ("a.json", b'[{"a": tru}]', "row 1 is cut off or broken"),
        ("a.json", b'[{"a": "\xff"}]', "is no text in UTF-8"),
        ("a.json", b'[{"a": 1, "a": 2}]', "row 1 .*names 'a' twice"),
        ("a.json", b'"x"', "must hold a list of rows, or a row on each line; it begins with b'\"'"),
        ("a.json", b'{\n "a": 1\n}', "a.json, line 1 is not complete JSON"),
        ("a.jsonl", b'{"a": 1}\n[2]\n', "line 2 must be an object with a chat, got list"),
        ("a.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 200 + b"]" * 200 + b"}\n", "line 2, its nesting, has 201 levels"),
        ("a.parquet", b"PAR1 nothing", "is not a complete parquet file"),
        ("a.txt", b"{}", "must end with .json, .jsonl, .parquet"),
    ],
)
def test_faults(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path / name)


def test_a_row_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ROW", 1000)
    monkeypatch.setattr(files, "_CHUNK", 64)
    for name, text in (("a.json", '[{"a": "'), ("a.jsonl", '{"a": "')):
        (tmp_path / name).write_text(text + "x" * 5000 + '"}')
        with pytest.raises(ValueError, match="1000"):
            rows_of(tmp_path / name)


def test_broken_lines_are_told_and_the_rest_is_read(tmp_path):
    path = write_rows(tmp_path / "chats.jsonl", ROWS)
    path.write_text(path.read_text().replace('"id": "b"', '"id": b'))
    told = []
    assert rows_of(path, tell=lambda where, text: told.append(where)) == [ROWS[0], ROWS[2]]
    assert told == [f"{path}, line 2"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.json does not exist"):
        rows_of(tmp_path / "no.json")


def test_an_empty_file_has_no_row(tmp_path):
    (tmp_path / "a.json").write_text(" \n")
    (tmp_path / "b.json").write_text("[ ]")
    assert rows_of(tmp_path / "a.json") == rows_of(tmp_path / "b.json") == []


def test_both_dialects_are_plain_rows(tmp_path):
    rows = [{"messages": say("Why?")}, {"conversations": ask("Why?")}]
    assert rows_of(write_rows(tmp_path / "chats.json", rows)) == rows
