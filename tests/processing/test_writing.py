"""A file or folder is there whole, or what stood there before is."""

import json
import os
import signal

import pytest

from processing.writing import whole_file, whole_folder, write_bytes, write_json, write_text


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_files_are_written_with_their_folders(tmp_path):
    write_text(tmp_path / "new" / "deep" / "ü.txt", "ü\n")
    write_bytes(tmp_path / "bytes", b"\x00\r\n")
    write_json(str(tmp_path / "rows.json"), {"b": [1], "a": None}, sort_keys=True)
    assert (tmp_path / "new" / "deep" / "ü.txt").read_bytes() == "ü\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n"
    text = (tmp_path / "rows.json").read_text()
    assert json.loads(text) == {"a": None, "b": [1]} and text.index('"a"') < text.index('"b"') and text[-1] == "\n"
    assert names_in(tmp_path) == {"new", "bytes", "rows.json"} and names_in(tmp_path / "new" / "deep") == {"ü.txt"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_file_that_was_there(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("before")
    for target in (path, tmp_path / "new"):
        with pytest.raises(error), whole_file(target) as unfinished:
            unfinished.write_text("half")
            raise error
    with pytest.raises(TypeError):
        write_json(path, {"no JSON": object()})
    assert names_in(tmp_path) == {"file"} and path.read_text() == "before"


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "after")
    assert names_in(tmp_path) == {"file"} and path.read_text() == "before"


def test_a_link_goes_on_to_lead_to_its_file(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    write_text(tmp_path / "link", "words")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "file").read_text() == "words"


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "a folder that may be replaced"])
def test_a_folder_is_replaced(tmp_path, before):
    folder = tmp_path / "deep" / "out"
    if before != "nothing":
        folder.mkdir(parents=True)
    if before == "a folder that may be replaced":
        (folder / "ours").write_text("old")
    with whole_folder(folder, lambda path: names_in(path) == {"ours"}) as unfinished:
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "new").write_text("new")
        assert names_in(folder.parent) - {"out"} == {unfinished.name}
    assert names_in(folder) == {"inner"} and names_in(folder.parent) == {"out"}


def test_what_may_not_be_replaced_is_left_as_it_is(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    for name, options, reason in (
        ("file", {"may_replace": lambda path: True}, "is not a folder"),
        ("folder", {}, "is not empty"),
        ("folder", {"may_replace": lambda path: False, "refusal": "is not mine"}, "is not mine"),
    ):
        with pytest.raises(FileExistsError, match=f"exists and {reason}. It was left"):
            with whole_folder(tmp_path / name, **options):
                pytest.fail("The block must not begin.")
    assert (tmp_path / "file").read_text() == "mine" and names_in(tmp_path) == {"file", "folder"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_folder_that_was_there(tmp_path, error):
    with whole_folder(tmp_path / "out") as unfinished:
        (unfinished / "first").write_text("")
    with pytest.raises(error), whole_folder(tmp_path / "out", lambda path: True) as unfinished:
        (unfinished / "second").write_text("")
        raise error
    assert names_in(tmp_path) == {"out"} and names_in(tmp_path / "out") == {"first"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_a_name_that_the_next_one_tells(tmp_path, caplog, kind):
    target = tmp_path / "out"
    child = os.fork()
    if child == 0:
        try:
            with whole_file(target) if kind == "file" else whole_folder(target) as unfinished:
                (unfinished if kind == "file" else unfinished / "part").write_bytes(b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # the child must not go on as a second pytest
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (left,) = names_in(tmp_path)
    if kind == "file":
        write_text(target, "whole")
    else:
        with whole_folder(target) as unfinished:
            (unfinished / "whole").write_text("")
    assert left in caplog.text and "was killed" in caplog.text
    # Half a file is of no use to anybody; half a folder may hold what took days.
    assert names_in(tmp_path) == ({"out"} if kind == "file" else {"out", left})


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path, caplog):
    with whole_file(tmp_path / "out") as first:
        first.write_text("first")
        with whole_file(tmp_path / "out") as second:
            second.write_text("second")
        assert (tmp_path / "out").read_text() == "second"
    assert (tmp_path / "out").read_text() == "first" and names_in(tmp_path) == {"out"} and not caplog.text


def test_content_that_a_killed_writer_moved_aside_is_told(tmp_path, caplog):
    (tmp_path / ".out.0123abcd.retired").mkdir()
    with whole_folder(tmp_path / "out"):
        pass
    assert ".out.0123abcd.retired stood at" in caplog.text
