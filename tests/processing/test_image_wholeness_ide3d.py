"""Pictures hold the pixels that their headers announce; healthy ones of every kind pass."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from processing.image_reading_ide3d import read_image
from processing.image_wholeness_ide3d import check_picture


def encode(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(width: int = 32, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def resized(data: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says another size, with the right sum."""
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def interlaced(width: int, height: int) -> bytes:
    """An Adam7 PNG, which Pillow reads and does not write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    pixels, rows = np.asarray(noise(width, height)), b""
    for left, top, across, down in passes:
        part = pixels[top::down, left::across]
        rows += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def check(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        check_picture(image)
        image.load()  # the file is where Pillow left it


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (9, 2), (33, 24)])
def test_healthy_pictures_pass(mode, size):
    check(encode(noise(*size).convert(mode)))
    assert np.array_equal(read_image(interlaced(*size)), noise(*size))


@pytest.mark.parametrize("default_image", [False, True])
def test_healthy_animations_pass(default_image):
    frames = [Image.fromarray(np.roll(np.asarray(noise()), step, 1)) for step in range(4)]
    check(encode(frames[0], save_all=True, append_images=frames[1:], default_image=default_image))


@pytest.mark.parametrize(("height", "word"), [(30, "fewer"), (20, "more")])
def test_a_header_of_other_rows_is_refused(height, word):
    with pytest.raises(ValueError, match=rf"its header announces 32 x {height} pixels, and it holds {word}"):
        read_image(resized(encode(noise()), 32, height))
    with pytest.raises(ValueError, match=word):
        read_image(resized(interlaced(32, 24), 32, height))


def test_an_animation_without_its_last_rows_is_refused():
    frames = [noise(), Image.fromarray(np.asarray(noise())[::-1])]
    data = encode(frames[0], save_all=True, append_images=frames[1:])
    place = data.rindex(b"fdAT")
    length = struct.unpack(">I", data[place - 4 : place])[0]
    body = data[place + 4 : place + 8] + zlib.compress(zlib.decompress(data[place + 8 : place + 4 + length])[:-97])
    chunk = struct.pack(">I", len(body)) + b"fdAT" + body + struct.pack(">I", zlib.crc32(b"fdAT" + body))
    check(data)
    with pytest.raises(ValueError, match="holds fewer"):
        check(data[: place - 4] + chunk + data[place + 8 + length :])


def test_any_changed_byte_of_the_pixels_is_refused():
    data = encode(noise())
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for place in range(start, end, 97):
        with pytest.raises(ValueError, match="is no readable image"):
            read_image(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def test_a_tiff_without_its_last_strips_is_refused():
    data = bytearray(encode(noise(), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        place = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, place)[0] == 257:
            struct.pack_into("<H", data, place + 8, 30)
    with pytest.raises(ValueError, match=r"announces 32 x 30 pixels, and its strips end at 32 x 24"):
        read_image(bytes(data))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_that_lacks_pixels_is_told(options, caplog):
    data = encode(noise(64, 48), "JPEG", **options)
    grey = encode(Image.new("RGB", (64, 48), (128,) * 3), "JPEG", **options)
    assert read_image(data).shape == read_image(grey).shape == (48, 64, 3) and not caplog.records
    read_image(data[: len(data) * 2 // 3] + b"\xff\xd9")
    assert "may be damaged: its pixels end before" in caplog.text
