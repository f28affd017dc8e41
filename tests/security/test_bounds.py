"""Sizes that a file declares are compared with its bytes and with bounds, before memory is taken."""

import io
import json
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from scipy import sparse

from processing.benchmarks.readers.annotations import read_records
from processing.benchmarks.readers.files import open_array, read_masks
from processing.benchmarks.readers.tasks import TASKS, Layout
from processing.limits import BOUNDS, check_archive, check_file, find_bound, load_json, parse_json

MEGABYTE = 2**20


pytestmark = pytest.mark.usefixtures("bounded")


def npy(array: np.ndarray, shape: tuple | None = None) -> bytes:
    """The bytes of an `.npy` file, whose header may declare another shape."""
    file = io.BytesIO()
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": shape or array.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def csr(shape, indptr=None):
    return {
        "format": npy(np.array(b"csr")),
        "shape": npy(np.array(shape)),
        "data": npy(np.ones(1, bool)),
        "indices": npy(np.zeros(1, np.int64)),
        "indptr": npy(np.array([0, 1]) if indptr is None else indptr),
    }


def coo(shape):
    index = npy(np.zeros(1, np.int64))
    return csr(shape) | {"format": npy(np.array(b"coo")), "row": index, "col": index}


class TestBounds:
    @pytest.mark.parametrize(("text", "bound"), [("1000", 1000), ("8e9", 8 * 10**9), ("1.5e3", 1500)])
    def test_the_environment_changes_them(self, text, bound, monkeypatch):
        assert find_bound("IDE3D_MAX_FILE_BYTES") == BOUNDS["IDE3D_MAX_FILE_BYTES"]
        monkeypatch.setenv("IDE3D_MAX_FILE_BYTES", text)
        assert find_bound("IDE3D_MAX_FILE_BYTES") == bound

    @pytest.mark.parametrize("text", ["", "many", "0", "-5", "nan", "inf", "\u00b2"])
    def test_what_is_no_bound_is_named(self, text, monkeypatch):
        monkeypatch.setenv("IDE3D_MAX_FILE_BYTES", text)
        with pytest.raises(ValueError, match="variable IDE3D_MAX_FILE_BYTES must be a positive number"):
            find_bound("IDE3D_MAX_FILE_BYTES")

    def test_a_file_above_one_says_how_to_raise_it(self, tmp_path, monkeypatch):
        path = tmp_path / "file.json"
        path.write_text("[1, 2, 3]")
        monkeypatch.setenv("IDE3D_MAX_JSON_BYTES", "8")
        with pytest.raises(
            ValueError, match=r"file\.json has 9 bytes, more than the 8 of IDE3D_MAX_JSON_BYTES.* set "
        ):
            load_json(path)
        monkeypatch.setenv("IDE3D_MAX_JSON_BYTES", "9")
        assert load_json(path) == [1, 2, 3] and check_file(path) == 9


class TestJson:
    @pytest.mark.parametrize("levels", [101, 1000, 100_000])
    @pytest.mark.parametrize("pair", ["[]", "{}"])
    def test_deep_nesting_is_named(self, pair, levels):
        opening = pair[0] if pair == "[]" else '{"a":'
        content = (opening * levels + "1" + pair[1] * levels).encode()
        with pytest.raises(ValueError, match=f"where, its nesting, has {levels} levels, more than the 100"):
            parse_json(content, "where")

    def test_brackets_in_texts_and_wide_files_are_no_nesting(self):
        value = {"[" * 200: ['\\"[[' * 60, "\\", '"', "{" * 300]} | {str(n): [[n]] for n in range(300)}
        assert parse_json(json.dumps(value).encode(), "where") == value
        deep = "[" * 100 + "]" * 100
        assert parse_json(deep.encode(), "where") == json.loads(deep)

    @pytest.mark.parametrize(
        "content", [b"", b"[1", b"\xff\xfe[]", b'{"a": 1} x', b'"\\ud800"', b"[" + b"9" * 5000 + b"]"]
    )
    def test_what_is_no_json_is_named(self, content):
        with pytest.raises(ValueError, match="where is not complete JSON in UTF-8, download or make it again"):
            parse_json(content, "where")
        assert parse_json(b'"\\ud83d\\ude00"', "where") == "\U0001f600"


class TestArchives:
    def test_healthy_ones_are_taken(self, tmp_path):
        np.savez(tmp_path / "plain.npz", a=np.arange(6).reshape(2, 3), b=np.array(5), c=np.zeros((0, 3)), d=["word"])
        np.savez_compressed(tmp_path / "small.npz", a=np.zeros((100, 100)))
        for path in tmp_path.iterdir():
            check_archive(path)
        masks = np.random.default_rng(0).random((4, 50)) > 0.5
        for kind in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix):
            sparse.save_npz(tmp_path / "m.npz", kind(masks))
            np.testing.assert_array_equal(read_masks(tmp_path / "m.npz"), masks)

    def test_a_bomb_is_refused_before_it_is_unpacked(self, tmp_path, monkeypatch):
        monkeypatch.setenv("IDE3D_MAX_UNPACKED_BYTES", str(MEGABYTE))
        path = archive(tmp_path / "bomb.npz", csr((1, 1)) | {"data": npy(np.zeros(MEGABYTE, np.uint8))})
        assert path.stat().st_size < 10_000
        with pytest.raises(ValueError, match=r"bomb\.npz, unpacked, has 10\d+ bytes, more than the 1048576"):
            read_masks(path)

    def test_an_array_that_declares_more_than_it_has_is_refused(self, tmp_path):
        path = archive(tmp_path / "m.npz", csr((1, 1)) | {"data": npy(np.ones(1), (2**28,))})
        with pytest.raises(ValueError, match=r"m\.npz, 'data\.npy', must have \d+ bytes for its shape"):
            read_masks(path)

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            (csr((2, 10**12), np.zeros(3, np.int64)), "as masks, has"),
            (coo((10**12, 1)), "as masks, has"),
            (csr((1, 1)) | {"data": npy(np.ones(1), (2**50,))}, "more than the"),
            (csr((1, 1)) | {"data": b"no array"}, "is no plain array"),
        ],
        ids=["wide", "tall", "huge", "no array"],
    )
    def test_sizes_that_only_the_header_has_are_refused(self, members, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            read_masks(archive(tmp_path / "m.npz", members))


class TestArrays:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (npy(np.zeros(4)) + b"tail", r"must have 160 bytes for its shape \(4,\), it has 164"),
            (npy(np.zeros(4), (10**12,)), "is not a complete array"),
            (npy(np.array(["a"])), "must hold one array of numbers, got one of <U1"),
            (npy(np.zeros(2, "f8,f4")), "must hold one array of numbers"),
            (b"PK\x03\x04" + bytes(30), "complete array|one array of numbers"),
        ],
        ids=["tail", "declared", "words", "compound", "archive"],
    )
    def test_other_arrays_are_named(self, content, message, tmp_path):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_array(tmp_path / "a.npy")


def test_columns_of_parquet_are_bounded_as_they_unpack(tmp_path, monkeypatch):
    """A dictionary writes one long text once, for all rows."""
    path = tmp_path / "vsibench" / "test-00000-of-00001.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"question": ["long" * 2**16] * 1000}), path)
    assert path.stat().st_size < MEGABYTE
    monkeypatch.setenv("IDE3D_MAX_UNPACKED_BYTES", str(2 * MEGABYTE))
    with pytest.raises(ValueError, match=r"parquet, unpacked, has \d+ bytes, more than the 2097152"):
        read_records(Layout(tmp_path), TASKS["vsibench"], "test")


def test_an_archive_whose_names_are_no_text_is_named(tmp_path):
    path = archive(tmp_path / "masks.npz", {"\u00e9": npy(np.ones(3))})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xc0\xaf"))
    with pytest.raises(ValueError, match=r"masks\.npz is no whole zip archive"):
        check_archive(path)
