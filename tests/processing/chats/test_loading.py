"""Tables and streams of chats hold the same rows, and a broken row stops with its place."""

import json
import os

import pytest
from chat_files import mixed_rows, say, write_rows

from processing.chats import load_chats, parse_chat, stream_chats
from processing.chats.loading import unpack_chat


@pytest.fixture
def files(tmp_path):
    rows = mixed_rows()
    return [
        str(write_rows(tmp_path / "a.jsonl", rows[:2])),
        str(write_rows(tmp_path / "b.json", rows[2:5])),
        str(write_rows(tmp_path / "c.parquet", rows[5:])),
    ]


def test_a_table_and_a_stream_hold_every_row_in_order(tmp_path, files):
    table = load_chats(files, cache_dir=tmp_path / "cache")
    assert list(table) == list(stream_chats(files))
    assert [unpack_chat(row) for row in table] == [parse_chat(row) for row in mixed_rows()]
    assert [row["where"].rpartition("/")[2] for row in table][:3] == [
        "a.jsonl, line 1",
        "a.jsonl, line 2",
        "b.json, row 1",
    ]
    assert {row["folder"] for row in table} == {str(tmp_path)}


def test_a_table_is_kept_until_its_file_changes(tmp_path, files):
    first = load_chats(files[:1], cache_dir=tmp_path / "cache")
    again = load_chats(files[:1], cache_dir=tmp_path / "cache")
    assert first.cache_files == again.cache_files and first.cache_files
    text = (tmp_path / "a.jsonl").read_text().replace("It is far.", "It is low.")
    (tmp_path / "a.jsonl").write_text(text)
    os.utime(tmp_path / "a.jsonl", ns=(1, 1))  # of the same size, and no younger
    changed = load_chats(files[:1], cache_dir=tmp_path / "cache")
    assert "It is low." in changed[0]["chat"] and "It is far." in first[0]["chat"]


def test_a_row_that_is_no_chat_stops_by_its_place(tmp_path, files):
    write_rows(tmp_path / "d.jsonl", [{"messages": say("Why?")}, {"video": "a.mp4", "messages": say("Why?")}])
    with pytest.raises(ValueError, match=r"d\.jsonl, line 2 has 1 videos without a placeholder"):
        load_chats([*files, str(tmp_path / "d.jsonl")], cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"d\.jsonl, line 2 has 1 videos without a placeholder"):
        list(stream_chats([str(tmp_path / "d.jsonl")]))


def test_a_file_without_rows(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([]))
    with pytest.raises(ValueError, match=r"a\.json holds no row"):
        load_chats([str(tmp_path / "a.json")], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("load", [load_chats, stream_chats])
def test_files_that_cannot_be_meant(tmp_path, files, load):
    for wrong, error, message in (
        ([], ValueError, "at least one file"),
        ([files[0], files[0]], ValueError, "twice"),
        ([str(tmp_path / "no.json")], FileNotFoundError, "no.json does not exist"),
        ([str(tmp_path)], ValueError, "regular file"),
        (files[0], TypeError, "files"),
        (5, TypeError, "files"),
    ):
        with pytest.raises(error, match=message):
            load(wrong)
