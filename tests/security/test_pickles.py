"""Pickles and files of `torch.save` call nothing, and take no memory that their bytes do not hold."""

import codecs
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from processing.benchmarks.readers.files import read_infos, read_point_cloud
from processing.benchmarks.readers.pickles import load_pickle, load_torch

HUGE = 2**31 - 1


pytestmark = pytest.mark.usefixtures("bounded")


class Call:
    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def array_of(kind, shape, content):
    """An array that is built as NumPy's pickles build it, from any type, shape and bytes."""
    return Call(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, shape, kind, False, content))


PAYLOADS = {
    "bytearray": Call(bytearray, HUGE),
    "bytes": Call(bytes, HUGE),
    "ndarray": Call(np.ndarray, (HUGE,)),
    "list": Call(list, (1,)),
    "str": Call(str, b"x"),
    "reconstruct": Call(np._core.multiarray._reconstruct, np.ndarray, (HUGE,), b"b"),
    "shape": array_of(np.dtype("f8"), (HUGE,), bytes(8)),
    "negative": array_of(np.dtype("f8"), (-1, -1), bytes(8)),
    "objects": array_of(np.dtype("O"), (HUGE,), []),
    "compound": array_of(np.dtype("f8,f8"), (1,), bytes(16)),
    "dates": array_of(np.dtype("M8[s]"), (1,), bytes(8)),
    "wide": array_of(np.dtype("V2000000000"), (1,), b""),
    "flags": array_of(Call(np.dtype, "f8", False, True, state=(3, "<", None, ("a",), {}, 8, 8, 63)), (1,), bytes(8)),
    "scalar": Call(np._core.multiarray.scalar, np.dtype("V2000000000")),
    "short scalar": Call(np._core.multiarray.scalar, np.dtype("f8"), b"1234"),
    "buffer": Call(np._core.numeric._frombuffer, b"1234", np.dtype("f8"), (HUGE,), "C"),
    "encoding": Call(codecs.encode, "text", "zlib"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_declared_size_takes_no_memory(payload, protocol, tmp_path):
    path = tmp_path / "file.pkl"
    if payload == "reconstruct":  # The shape is not used: an array begins empty, whatever it says.
        path.write_bytes(pickle.dumps({"a": PAYLOADS[payload]}, protocol))
        assert load_pickle(path)["a"].size == 0
        return
    path.write_bytes(pickle.dumps({"a": PAYLOADS[payload]}, protocol))
    with pytest.raises(ValueError, match=r"file\.pkl is not a pickle of arrays and builtins alone: .*authors"):
        load_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r" + struct.pack("<I", HUGE) + b".",
        b"]p2000000000\n.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x02B" + struct.pack("<I", 2**32 - 1) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", -1) + b"x.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
        b"\x80\x02K\x01Q.",
        b"Pid\n.",
        b"(i" + b"numpy\nndarray\n.",
        b"I1",
        b"\xff.",
    ],
)
def test_opcodes_that_declare_too_much_are_refused(content, tmp_path):
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pkl is not a pickle"):
        load_pickle(tmp_path / "file.pkl")


@pytest.mark.parametrize("name", ["_codecs encode", "numpy.core.multiarray scalar", "builtins complex", "numpy dtype"])
def test_what_a_pickle_names_cannot_be_changed(name, tmp_path):
    """BUILD sets attributes of whatever stands before it, also of functions."""
    content = (
        b"c" + name.replace(" ", "\n").encode() + b"\nN}X\x0c\x00\x00\x00__defaults__NsX\x01\x00\x00\x00aNs\x86b."
    )
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="it changes what it names"):
        load_pickle(tmp_path / "file.pkl")


def test_one_text_is_not_unpacked_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE3D_MAX_UNPACKED_BYTES", "1e6")
    call = b"(h\x01X\x06\x00\x00\x00latin1tR0"
    content = b"\x80\x02X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"q\x010c_codecs\nencode\nq\x02"
    (tmp_path / "file.pkl").write_bytes(content + (b"h\x02" + call) * 50 + b".")
    assert load_pickle(tmp_path / "file.pkl") is not None
    (tmp_path / "file.pkl").write_bytes(content + (b"h\x02" + call) * 200 + b".")
    with pytest.raises(ValueError, match="more bytes than IDE3D_MAX_UNPACKED_BYTES"):
        load_pickle(tmp_path / "file.pkl")


def test_lists_that_hold_each_other_many_times_are_no_matrix(tmp_path):
    """Forty lists, each twice in the next: written out they would be 2 ** 40 numbers."""
    nested = [1.0] * 2
    for _ in range(40):
        nested = [nested] * 2
    item = {"images": [], "axis_align_matrix": np.eye(4), "depth_cam2img": nested}
    for change in ({}, {"depth_cam2img": [nested] * 4}, {"sample_idx": nested}, {"images": [{"img_path": nested}]}):
        contents = {"data_list": [{"sample_idx": "scannet/a", "depth_cam2img": np.eye(4), **item, **change}]}
        (tmp_path / "infos.pkl").write_bytes(pickle.dumps(contents))
        if "sample_idx" in change:
            assert read_infos(tmp_path / "infos.pkl") == {}
            continue
        with pytest.raises(ValueError, match=r"infos\.pkl, scene scannet/a: .*matrix of numbers|must be text"):
            read_infos(tmp_path / "infos.pkl")


CLOUD = {
    "xyz": np.arange(12, dtype=np.float32).reshape(4, 3),
    "instance_ids": np.arange(4),
    "aabb_obj_ids": np.arange(1, dtype=np.int32),
    "aabb_corner_xyz": np.zeros((1, 8, 3)),
}


@pytest.mark.parametrize("is_new", [True, False])
def test_clouds_of_arrays_are_read(is_new, tmp_path):
    torch.save({**CLOUD, "rgb": np.zeros((0, 3), np.uint8)}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_new)
    read = read_point_cloud(tmp_path / "a.pth")
    for name, array in CLOUD.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype and type(read[name]) is np.ndarray
    assert read["rgb"].shape == (0, 3)


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_tensors_are_those_that_were_stored(kind, tmp_path):
    tensor = (torch.arange(24).reshape(2, 3, 4) % 5).to(getattr(torch, kind))
    stored = {
        "whole": tensor,
        "turned": tensor.transpose(0, 2),
        "part": tensor[1, 1:],
        "empty": tensor[:0],
        "one": tensor[0, 0, 0],
    }
    torch.save(stored, tmp_path / "a.pth")
    read = load_torch(tmp_path / "a.pth")
    for name, value in stored.items():
        np.testing.assert_array_equal(read[name], value.numpy())
        assert read[name].dtype == value.numpy().dtype


def resaved(path, change):
    """Write a file of `torch.save` again, with another pickle inside."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"xyz": torch.zeros(7, 3)}, path)
    sizes, strides = b"K\x07K\x03\x86", b"K\x03K\x01\x86"
    for shape, steps in ((b"K\x08K\x03\x86", strides), (b"J\xff\xff\xff\x0fK\x03\x86", b"K\x00K\x00\x86")):
        torch.save({"xyz": torch.zeros(7, 3)}, path)
        resaved(path, lambda content, shape=shape, steps=steps: content.replace(sizes, shape).replace(strides, steps))
        with pytest.raises(ValueError, match="larger than its storage"):
            load_torch(path)


def test_other_things_in_a_cloud_are_refused_by_name(tmp_path):
    for value, name in ((Call(bytearray, HUGE), "bytearray"), (torch.nn.Linear(1, 1), "Linear")):
        torch.save({"xyz": value}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=rf"a\.pth is not a file of plain arrays: it asks for .*{name}"):
            load_torch(tmp_path / "a.pth")
    torch.save({"xyz": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old\.pth is not a file of plain arrays"):
        load_torch(tmp_path / "old.pth")
    torch.save({**CLOUD, "xyz": "words"}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="`xyz` must be an array of numbers, got str"):
        read_point_cloud(tmp_path / "a.pth")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("other.txt", "")
    (tmp_path / "a.pth").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"a\.pth is not a file of plain arrays"):
        load_torch(tmp_path / "a.pth")
