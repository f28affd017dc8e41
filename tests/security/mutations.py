"""Small files of every format that we read, and a mutator of bytes with fixed seeds."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs import goods

__all__ = ["FORMATS", "KINDS", "SUMMED", "mutate", "write"]


def _flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    place = int(rng.integers(len(data)))
    data[place] ^= 1 << int(rng.integers(8))
    return data


def _scatter(data: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(len(data), size=20):
        data[place] = int(rng.integers(256))
    return data


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def _remove(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 65))]
    return data


def _insert(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 65)))
    return data


def _repeat(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(data)))
    data[start:start] = data[start : start + int(rng.integers(1, 257))]
    return data


def _extreme(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Write a length that is far too large, or negative, near the start, where headers are."""
    start = int(rng.integers(min(len(data), 256)))
    value = (b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x00" * 8, b"99999999")[int(rng.integers(4))]
    data[start : start + len(value)] = value
    return data


KINDS: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    _flip,
    _scatter,
    _cut,
    _remove,
    _insert,
    _repeat,
    _extreme,
)


def mutate(data: bytes, seed: int) -> bytes:
    """Damage a file in one way; the same for a seed."""
    rng = np.random.default_rng(seed)
    return bytes(KINDS[seed % len(KINDS)](bytearray(data), rng))


def _video(folder: Path, suffix: str) -> Path:
    return goods.video_file(folder, suffix, 12)


def _picture(folder: Path, suffix: str = "png") -> Path:
    from PIL import Image

    path = folder / f"picture.{suffix}"
    Image.fromarray(goods.pixels()[0]).save(path)
    return path


def _look(path: Path) -> Any:
    return goods.processor()(text="<video>x", videos=str(path), return_tensors="pt")["pixel_values_videos"]


def _show(path: Path) -> Any:
    return goods.processor()(text="<image>x", images=str(path), return_tensors="pt")["pixel_values"]


def _regions(path: Path) -> Any:
    from processing.region_files import read_regions

    return read_regions(path, goods.processor_grid(), [0, 1, 2, 3], 4).masks


def _of_rooms(name: str) -> Callable[[Path], Path]:
    def copy(folder: Path) -> Path:
        path = folder / Path(name).name
        path.write_bytes((goods.rooms_folder() / name).read_bytes())
        return path

    return copy


def _reader(name: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        from processing.benchmarks.readers import files

        return getattr(files, name)(path)

    return read


def _store(folder: Path) -> Path:
    import torch

    from trainer.teachers import FrameSource, StoreIdentity
    from trainer.teachers.store import save_scene

    identity = StoreIdentity("eyes", "1", "mit", "none", "clean", (70, 70), 14, 2)
    return save_scene(folder, identity, FrameSource("scene", ("a", "b")), torch.ones(2, 3, 3, 4))


def _read_store(path: Path) -> Any:
    from trainer.teachers import TeacherStore

    return TeacherStore(path.parent).load_features("scene", ("a", "b"), goods.processor_grid())


def _furniture(folder: Path) -> Path:
    """The smallest pieces of the package in a file of their own."""
    import io

    import safetensors.numpy
    from PIL import Image

    from processing.rooms.furnished.catalogue import pack, read_catalogue

    pieces = [piece for group in read_catalogue().values() for piece in group]
    pieces = sorted(pieces, key=lambda piece: len(piece.shape.corners))[:2]
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "brown").save(buffer, "JPEG")
    pictures = [[buffer.getvalue() if m.picture is not None else None for m in piece.materials] for piece in pieces]
    arrays, header = pack(pieces, pictures)
    path = folder / "furniture.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays, header))
    return path


def _read_furniture(path: Path) -> Any:
    from processing.rooms.furnished import read_catalogue

    return read_catalogue(path)


def _json(folder: Path) -> Path:
    path = folder / "regions.json"
    path.write_text(json.dumps({"frame_size": [48, 64], "boxes": {"ball": [[5, 5, 30, 30]] * 4}}))
    return path


def _npy(folder: Path) -> Path:
    np.save(folder / "regions.npy", np.ones((4, 48, 64), np.int64))
    return folder / "regions.npy"


def _npz(folder: Path) -> Path:
    np.savez(folder / "regions.npz", ball=np.ones((4, 48, 64), bool))
    return folder / "regions.npz"


def _colmap(name: str) -> Callable[[Path], Path]:
    """Two pictures of one camera, three points, and a depth map."""
    pose = (1.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.3)
    keypoints = b"".join(struct.pack("<2dq", 1.5, 2.5, point) for point in (1, 2, 3, -1))
    pictures = [
        struct.pack("<I7dI", place, *pose, 1) + f"{place}.png".encode() + struct.pack("<BQ", 0, 4) + keypoints
        for place in (1, 2)
    ]
    points = [struct.pack("<q3d3BdQ4I", place, 1, 2, 3, 9, 9, 9, 0.5, 2, 1, 0, 2, 0) for place in (1, 2, 3)]
    contents = {
        "cameras.bin": struct.pack("<Q2i2Q4d", 1, 1, 1, 64, 48, 50, 50, 32, 24),
        "images.bin": struct.pack("<Q", 2) + b"".join(pictures),
        "points3D.bin": struct.pack("<Q", 3) + b"".join(points),
        "1.png.geometric.bin": b"8&6&1&" + np.ones(48, "<f4").tobytes(),
    }

    def write_all(folder: Path) -> Path:
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        return folder / name

    return write_all


def _read_model(path: Path) -> Any:
    from processing.captures.colmap_model import read_model

    return read_model(path.parent, ".bin", has_points=True)


def _read_points(path: Path) -> Any:
    from processing.captures.colmap_model import read_points

    return read_points(path.parent, ".bin")


def _read_depth_map(path: Path) -> Any:
    from processing.captures.colmap_model import read_depth_map

    return read_depth_map(path)


# Formats with a sum over all contents: what is read without an error is what was written.
SUMMED = ("png", "npz", "masks")
# Name: a small right file, and its reader.
FORMATS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    **{
        suffix: (lambda folder, suffix=suffix: _video(folder, suffix), _look)
        for suffix in ("mp4", "mkv", "webm", "avi")
    },
    **{
        suffix: (lambda folder, suffix=suffix: _picture(folder, suffix), _show)
        for suffix in ("png", "jpg", "gif", "webp", "tiff")
    },
    "json": (_json, _regions),
    "npy": (_npy, _regions),
    "npz": (_npz, _regions),
    "safetensors": (_store, _read_store),
    "boxes": (_of_rooms("metadata/scannet_val_gt_box.json"), _reader("read_boxes")),
    "infos": (_of_rooms("embodiedscan/embodiedscan_infos_val.pkl"), _reader("read_infos")),
    "masks": (_of_rooms("scannet/mask/room0001_00.mask.npz"), _reader("read_masks")),
    "cloud": (_of_rooms("scannet/pcd_with_object_aabbs/val/room0001_00.pth"), _reader("read_point_cloud")),
    "features": (
        _of_rooms("scannet/posed_images_3d_feature_vggt/room0001_00/vggt_sliced.npy"),
        _reader("open_array"),
    ),
    "colmap_cameras": (_colmap("cameras.bin"), _read_model),
    "colmap_images": (_colmap("images.bin"), _read_model),
    "colmap_points": (_colmap("points3D.bin"), _read_points),
    "colmap_depth": (_colmap("1.png.geometric.bin"), _read_depth_map),
    "furniture": (_furniture, _read_furniture),
}


def write(name: str, folder: Path) -> Path:
    """Write the right file of a format."""
    return FORMATS[name][0](folder)
