"""Check that stored pictures hold the pixels that their headers announce; Pillow leaves what is missing black."""

import logging
import os
import struct
import zlib
from typing import Any, BinaryIO

logger = logging.getLogger(__name__)

_GREY = 128  # of blocks that libjpeg did not find
# Numbers of a PNG pixel by its colour type: grey, RGB, palette, grey and RGB with transparency.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first column, first row, step of columns, step of rows of each pass.
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_TIFF_SIZE = (256, 257)  # tags of width and height
_PNG_HEAD = 8  # bytes before the first chunk
_PIECE = 2**18  # bytes that are unpacked at a time


def check_picture(image: Any) -> None:
    """Check that the file of a picture holds the pixels that its header announces.

    PNG has a checksum for each chunk and a count of bytes for each row; TIFF lists its strips or tiles. Pictures whose
    file is closed already, and those of other formats, pass.

    Args:
        image (`PIL.Image.Image`):
            Picture as Pillow opened it.

    Raises:
        ValueError: for a PNG whose data are damaged, or fewer or more than its header announces, and for a TIFF
            without its last strips.
    """
    file = getattr(image, "fp", None)
    if image.format == "TIFF" and getattr(image, "tile", None):
        width, height = (image.tag_v2.get(key, 0) for key in _TIFF_SIZE)  # Pillow's own size is upright
        right, bottom = (max(part[1][side] for part in image.tile) for side in (2, 3))
        if right < width or bottom < height:
            raise ValueError(
                f"its header announces {width} x {height} pixels, and its strips end at {right} x {bottom}"
            )
    if image.format == "PNG" and file is not None and not file.closed:
        place = file.tell()
        try:
            _check_png(file)
        finally:
            file.seek(place)


def warn_of_missing_jpeg(image: Any, stored: Any, name: str) -> None:
    """Warn of a JPEG that lacks pixels, which libjpeg makes grey or coarse.

    Only where the picture ends in that grey, or is progressive, a second decoder is asked: PyAV's, where it is
    installed, which stops at missing data.

    Args:
        image (`PIL.Image.Image`):
            Picture whose pixels are loaded already.
        stored (`Any`):
            Path or seekable file that it was opened from; anything else is not looked at.
        name (`str`):
            How warnings call the picture.
    """
    if image.format != "JPEG":
        return
    corner = image.crop((max(image.width - 8, 0), image.height - 1, image.width, image.height))
    if not image.info.get("progressive") and set(corner.getextrema()) - {(_GREY, _GREY), _GREY}:
        return
    try:
        import av
    except ImportError:
        return
    if isinstance(stored, (str, os.PathLike)):
        with open(stored, "rb") as file:
            data = file.read()
    elif hasattr(stored, "read") and not getattr(stored, "closed", False):
        stored.seek(0)
        data = stored.read()
    else:
        return
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options, decoder.thread_count = {"err_detect": "explode"}, 1
    try:
        found = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.error.FFmpegError:
        found = []
    if not found:
        logger.warning("%s may be damaged: its pixels end before its header says, or are broken.", name)


def lacks_end_of_gif(file: BinaryIO) -> bool:
    """Return whether the blocks of a GIF end with its file, without a trailer.

    Args:
        file (binary file):
            Seekable; it is left where it was.
    """

    def skip_table(flags: bytes) -> None:
        file.seek(3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0, os.SEEK_CUR)

    start = file.tell()
    file.seek(0)
    skip_table(file.read(13)[10:11])
    while kind := file.read(1):
        if kind == b",":
            skip_table(file.read(9)[8:])
        elif kind != b"!":  # the trailer, or what no reader knows
            break
        file.seek(1, os.SEEK_CUR)  # kind of the extension, or size of the codes
        while size := file.read(1).strip(b"\0"):
            file.seek(size[0], os.SEEK_CUR)
    file.seek(start)
    return not kind


class _Pixels:
    """Counts the unpacked bytes of one picture of a PNG."""

    def __init__(self, width: int, height: int, form: tuple[int, int, bool]):
        depth, colour, is_interlaced = form
        self.size = f"{width} x {height}"
        self.wanted, self.found = 0, 0
        self.unpacker = zlib.decompressobj()
        for left, top, across, down in _PNG_PASSES if is_interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
            if columns:
                self.wanted += rows * (1 + (columns * depth * _PNG_CHANNELS.get(colour, 1) + 7) // 8)

    def add(self, data: bytes) -> None:
        while data and self.found <= self.wanted and not self.unpacker.eof:
            try:
                self.found += len(self.unpacker.decompress(data, _PIECE))
            except zlib.error as error:
                raise ValueError(f"its pixels are damaged: {error}") from error
            data = self.unpacker.unconsumed_tail

    def check(self) -> None:
        if self.found < self.wanted:
            self.found += len(self.unpacker.flush())
        if self.found != self.wanted:
            amount = "fewer" if self.found < self.wanted else "more"
            raise ValueError(f"its header announces {self.size} pixels, and it holds {amount}")


def _check_png(file: BinaryIO) -> None:
    form, pixels = None, None
    file.seek(_PNG_HEAD)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind not in (b"IHDR", b"fcTL", b"IDAT", b"fdAT"):
            file.seek(length + 4, os.SEEK_CUR)
            if kind == b"IEND":
                break
            continue
        body = file.read(length)  # not more than there is
        if len(body) < length or file.read(4) != struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))):
            raise ValueError(f"the checksum of a part of its pixels ({kind.decode()}) is wrong, or it is cut off")
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body[:13])
            form = (depth, colour, bool(interlace))
            pixels = _Pixels(width, height, form)
        elif kind == b"fcTL" and form and pixels.found:  # One before the first pixels is about those of the header.
            pixels.check()
            pixels = _Pixels(*struct.unpack(">II", body[4:12]), form)
        elif pixels and kind in (b"IDAT", b"fdAT"):
            pixels.add(body if kind == b"IDAT" else body[4:])
    if pixels:
        pixels.check()


__all__ = ["check_picture", "lacks_end_of_gif", "warn_of_missing_jpeg"]
