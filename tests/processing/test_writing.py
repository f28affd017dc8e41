"""A file or folder is there whole, or what stood there before is."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from processing.writing import append_text, hold_file, whole_file, whole_folder, write_bytes, write_json, write_text


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


@pytest.mark.parametrize("kind", ["file", "folder", "line"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_leaves_what_was_there_and_is_told(tmp_path, monkeypatch, kind, number):
    path = tmp_path / "made" / "out"
    if kind == "line":
        append_text(tmp_path / "lines", "before\n")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(number)) as told:
        if kind == "file":
            write_text(path, "after")
        elif kind == "folder":
            with whole_folder(path) as unfinished:
                (unfinished / "new").write_text("")
                full(0)
        else:
            path = tmp_path / "lines"
            append_text(path, "after\n")
    assert told.value.errno == number
    assert f"{path} could not be written" in str(told.value) and "MB free in" in str(told.value)
    if kind == "line":
        assert path.read_text() == "before\n"
    else:
        assert not path.exists() and not path.parent.exists() or names_in(path.parent) == set()


@pytest.mark.parametrize(
    "words",
    [
        "I/O error: No space left on device",
        "PytorchStreamWriter failed writing file x",
        "1024 requested and 0 written",
    ],
)
def test_writers_in_other_languages_are_told_too(tmp_path, words):
    with pytest.raises(OSError, match=f"{tmp_path / 'out'} could not be written"), whole_folder(tmp_path / "out"):
        raise RuntimeError(words)


def test_errors_of_the_block_that_are_no_matter_of_the_place_pass_unchanged(tmp_path):
    for error in (PermissionError(errno.EACCES, "Permission denied", "source"), RuntimeError("words"), KeyError("a")):
        with pytest.raises(type(error)) as told, whole_folder(tmp_path / "out"):
            raise error
        assert told.value is error


def test_a_link_out_of_its_folder_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for write in (write_text, append_text):
        with pytest.raises(FileExistsError, match="outside of its folder, and is not followed. Name that file"):
            write(tmp_path / "link", "words")
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"


def test_links_of_folders_and_inside_a_folder_go_on_to_lead_there(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "link").symlink_to("file")
    write_text(tmp_path / "outputs" / "link", "words")
    assert (tmp_path / "disk" / "link").is_symlink() and (tmp_path / "disk" / "file").read_text() == "words"


@pytest.mark.parametrize("name", ["", "folder"])
def test_what_is_no_name_of_a_file_is_told(tmp_path, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, IsADirectoryError), match="`path` must be a path, not empty|is a folder"):
        write_text(name, "words")


def test_a_file_is_held_by_one_process_at_a_time(tmp_path):
    with hold_file(tmp_path / "new" / "lock") as first, hold_file(tmp_path / "new" / "lock") as second:
        assert first and not second
    with hold_file(tmp_path / "new" / "lock") as again:
        assert again


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
        ("file", {"may_replace": lambda path: True}, "is not a folder but a file"),
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


@pytest.fixture(params=["exchange", "two steps"])
def swap(request, monkeypatch):
    """File systems that exchange two folders in one step, and those that cannot."""
    if request.param == "two steps":
        monkeypatch.setattr("processing.writing._exchange", lambda one, other: False)
    return request.param


def kill_in(block):
    """Run a block in a child that kills itself."""
    child = os.fork()
    if child == 0:
        try:
            block()
        finally:
            os._exit(1)  # the child must not go on as a second pytest
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_told_and_removed_by_the_next(tmp_path, caplog, kind):
    target = tmp_path / "out"

    def block():
        with whole_file(target) if kind == "file" else whole_folder(target) as unfinished:
            (unfinished if kind == "file" else unfinished / "part").write_bytes(b"half of it")
            die()

    kill_in(block)
    (left,) = names_in(tmp_path)
    own = [f".out.{name}" for name in ("mine.unfinished", "12345678.unfinished.txt", "backup.retired")]
    for name in own:
        (tmp_path / name).write_text("of the user's own")
    if kind == "file":
        write_text(target, "whole")
    else:
        with whole_folder(target) as unfinished:
            (unfinished / "whole").write_text("")
    assert left in caplog.text and "was killed; it is removed" in caplog.text
    assert names_in(tmp_path) == {"out", *own}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", ["before", "between", "behind"])
def test_a_writer_killed_while_it_swaps_leaves_old_or_new(tmp_path, caplog, monkeypatch, swap, step):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_text("")

    def write(name):
        with whole_folder(folder, lambda path: True) as unfinished:
            (unfinished / name).write_text("")

    with monkeypatch.context() as patch:
        if step == "before":
            patch.setattr("processing.writing._swap", die)
        elif step == "behind":
            patch.setattr("processing.writing._remove", die)
        elif swap == "two steps":
            rename = Path.rename
            patch.setattr(Path, "rename", lambda path, to: die() if path.suffix == ".unfinished" else rename(path, to))
        else:
            pytest.skip("One step has no middle.")
        kill_in(lambda: write("new"))
    if step == "between":  # the one moment without either: the next writer moves the old one back before it begins
        assert not folder.exists()
        with pytest.raises(FileExistsError, match="is not empty"), whole_folder(folder):
            pytest.fail("The block must not begin.")
        assert "it is moved back" in caplog.text
    assert names_in(folder) == ({"new"} if step == "behind" else {"old"})
    write("newest")
    assert names_in(folder) == {"newest"} and names_in(tmp_path) == {"out"}


def test_a_writer_leaves_what_another_one_is_writing(tmp_path, caplog, swap):
    with whole_folder(tmp_path / "out", lambda path: True) as first:
        (first / "first").write_text("")
        with whole_folder(tmp_path / "out", lambda path: True) as second:
            (second / "second").write_text("")
        assert names_in(tmp_path / "out") == {"second"}
    assert names_in(tmp_path / "out") == {"first"} and names_in(tmp_path) == {"out"} and not caplog.text


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path, caplog):
    with whole_file(tmp_path / "out") as first:
        first.write_text("first")
        with whole_file(tmp_path / "out") as second:
            second.write_text("second")
        assert (tmp_path / "out").read_text() == "second"
    assert (tmp_path / "out").read_text() == "first" and names_in(tmp_path) == {"out"} and not caplog.text
