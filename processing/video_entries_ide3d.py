"""Bits of packets that reset a decoder, and what it must know from before, by codec."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Look", "Rule", "find_rule"]

# Codecs whose every packet is one whole picture that needs nothing from before.
INTRA_CODECS = ("dnxhd", "mjpeg", "prores", "rawvideo")
_START_CODE = re.compile(rb"\x00\x00\x01")

# Types of units of H.264, ITU-T H.264 table 7-1
_H264_SLICE, _H264_IDR, _H264_SEI, _H264_SPS = 1, 5, 6, 7
_H264_SETS = (_H264_SPS, 8, 13, 15)
_H264_HARMLESS = (9, 10, 11, 12)  # delimiter, ends, filler
_H264_WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)  # profiles
# Types of units of HEVC, ITU-T H.265 table 7-1
_HEVC_SLICES, _HEVC_IRAP, _HEVC_PPS = (*range(10), 19, 20, 21), (19, 20, 21), 34
_HEVC_SETS, _HEVC_SEI = (32, 33, _HEVC_PPS), (39, 40)
_HEVC_HARMLESS = (35, 38, 62)  # delimiter, filler, metadata of Dolby Vision
# Messages that change how later pictures look: film grain, orientation, transfer characteristics
_LASTING_MESSAGES = (19, 47, 147)
_JPEG_TABLES = (b"\xff\xdb", b"\xff\xc4")
_VP9_SIZE_BITS = {0: 68, 1: 71, 2: 69}  # by profile: of a key frame's head, up to its size


class Look(NamedTuple):
    """Facts of a packet by its bits.

    Args:
        is_entry (`bool`):
            Whether it resets the decoder: no frame that is shown from it on needs an earlier packet.
        state (`tuple[bytes, ...]`):
            Parameter sets and the like in it, which hold until others come.
    """

    is_entry: bool
    state: tuple[bytes, ...] = ()


Rule = Callable[[memoryview], Look | None]


def find_rule(codec: str, extradata: bytes | None) -> Rule | None:
    """Return the function that looks at packets of a codec.

    Args:
        codec (`str`):
            Name of FFmpeg's decoder.
        extradata (`bytes`, *optional*):
            Parameter sets of the container.

    Returns:
        `Callable` or None: Function of a packet's bytes; it gives None for a packet that is not one plain, shown and
        whole picture. None without a rule for the codec, or for this kind of stream.
    """
    extradata = extradata or b""
    if codec in INTRA_CODECS:
        return _look_at_jpeg if codec == "mjpeg" else lambda packet: Look(True)
    if codec in ("h264", "hevc"):
        look = _look_at_h264 if codec == "h264" else _look_at_hevc
        is_prefixed = extradata[:1] == b"\x01"
        place = 4 if codec == "h264" else 21
        if is_prefixed and len(extradata) <= place:
            return None
        length = (extradata[place] & 3) + 1 if is_prefixed else 0
        sets = [*_list_sets(extradata, codec)] if is_prefixed else [*_split_marked(memoryview(extradata))]
        if not all(_is_plain_set(codec, bytes(unit)) for unit in sets):
            return None
        return lambda packet: look(_split_prefixed(packet, length) if length else _split_marked(packet))
    return {"vp8": _look_at_vp8, "vp9": _look_at_vp9, "libdav1d": _look_at_av1, "av1": _look_at_av1}.get(codec)


def _look_at_jpeg(packet: memoryview) -> Look | None:
    content = bytes(packet)
    return Look(True) if all(table in content for table in _JPEG_TABLES) else None


def _look_at_h264(units: Iterator[memoryview]) -> Look | None:
    state, kinds, pictures = [], [], 0
    for unit in units:
        kind = unit[0] & 31
        if kind in (_H264_SLICE, _H264_IDR):
            pictures += unit[1] >> 7  # first_mb_in_slice is 0
            kinds.append(kind)
        elif kind in _H264_SETS:
            state.append(bytes(unit))
        elif kind == _H264_SEI:
            state += _list_lasting(unit[1:])
        elif kind not in _H264_HARMLESS:
            return None
    if pictures != 1 or not all(_is_plain_set("h264", unit) for unit in state):
        return None
    return Look(kinds[0] == _H264_IDR, tuple(state))


def _look_at_hevc(units: Iterator[memoryview]) -> Look | None:
    state, kinds, pictures = [], [], 0
    for unit in units:
        kind, layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3
        if kind in _HEVC_SLICES:
            pictures += unit[2] >> 7
            if kind in _HEVC_IRAP and unit[2] >> 6 & 1:  # frames before it are not shown
                return None
            kinds.append(kind)
        elif kind in _HEVC_SETS:
            state.append(bytes(unit))
        elif kind in _HEVC_SEI:
            state += _list_lasting(unit[2:])
        elif kind not in _HEVC_HARMLESS:
            return None
        if layer:  # a second view or a better quality
            return None
    if pictures != 1 or not all(_is_plain_set("hevc", unit) for unit in state):
        return None
    return Look(kinds[0] in _HEVC_IRAP, tuple(state))


def _look_at_vp8(packet: memoryview) -> Look | None:
    if not packet[0] >> 4 & 1:  # a reference that is not shown
        return None
    is_key = not packet[0] & 1
    return Look(is_key, (bytes(packet[3:10]),) if is_key else ())


def _look_at_vp9(packet: memoryview) -> Look | None:
    head = packet[0]
    profile = head >> 5 & 1 | head >> 3 & 2
    if head >> 6 != 2 or profile not in _VP9_SIZE_BITS:
        return None
    is_repeat, is_inter, is_shown = head >> 3 & 1, head >> 2 & 1, head >> 1 & 1
    is_superframe = packet[-1] & 0xE0 == 0xC0
    if is_repeat or is_inter or not is_shown:
        return Look(False) if is_repeat or is_shown or is_superframe else None
    size = int.from_bytes(packet[:10], "big") >> 80 - _VP9_SIZE_BITS[profile]
    return Look(True, (size.to_bytes(10, "big"),))


def _look_at_av1(packet: memoryview) -> Look | None:
    state, is_entry, place = [], None, 0
    while place < len(packet):
        head, place = packet[place], place + 1
        if head >> 2 & 1:  # an extension: of several layers only the lowest is plain
            if packet[place] >> 3 & 3:
                return None
            place += 1
        size = len(packet) - place
        if head >> 1 & 1:
            size, place = _read_leb128(packet, place)
        if size > len(packet) - place:
            return None
        kind, content = head >> 3 & 15, packet[place : place + size]
        if kind == 1:  # sequence header
            if content[0] >> 3 & 1:  # of a still
                return None
            state.append(bytes(content))
        elif kind in (3, 6) and is_entry is None:  # frame header, frame: a key frame that is shown
            is_entry = content[0] >> 4 == 1 and bool(state)
        place += size
    return None if is_entry is None else Look(is_entry, tuple(state))


def _read_leb128(packet: memoryview, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte, place = packet[place], place + 1
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, place


def _split_prefixed(packet: memoryview, length: int) -> Iterator[memoryview]:
    """Yield the units of a packet that stand behind their sizes.

    Raises:
        IndexError: if sizes and packet disagree.
    """
    place = 0
    while place < len(packet):
        start = place + length
        place = start + int.from_bytes(packet[place:start], "big")
        if not start < place <= len(packet):
            raise IndexError(f"Expected a unit within {len(packet)} bytes, got one from {start} to {place}.")
        yield packet[start:place]


def _split_marked(packet: memoryview) -> Iterator[memoryview]:
    """Yield the units of a packet that stand behind start codes."""
    starts = [match.end() for match in _START_CODE.finditer(packet)]
    for start, end in zip(starts, [start - 3 for start in starts[1:]] + [len(packet)], strict=True):
        while end > start + 1 and not packet[end - 1]:  # zeros in front of a start code belong to none
            end -= 1
        yield packet[start:end]


def _list_sets(extradata: bytes, codec: str) -> Iterator[bytes]:
    """Yield the parameter sets of `avcC` and `hvcC`, ISO/IEC 14496-15.

    Raises:
        IndexError: if they are cut.
    """
    if codec == "h264":
        place, groups = 5, [31, 255]
    else:
        place, groups = 23, [None] * extradata[22]
    for mask in groups:
        if mask is None:
            count, place = int.from_bytes(extradata[place + 1 : place + 3], "big"), place + 3
        else:
            count, place = extradata[place] & mask, place + 1
        for _ in range(count):
            end = place + 2 + int.from_bytes(extradata[place : place + 2], "big")
            if not place + 2 < end <= len(extradata):
                raise IndexError("The parameter sets of the container are cut.")
            yield extradata[place + 2 : end]
            place = end


def _list_lasting(body: memoryview) -> Iterator[bytes]:
    """Yield the messages of an SEI unit that change how later pictures look."""
    content, place = _unescape(bytes(body)), 0
    while place < len(content) - 1:
        numbers = []
        for _ in range(2):  # type and size, each a sum of bytes
            number = 0
            while content[place] == 255:
                number, place = number + 255, place + 1
            numbers.append(number + content[place])
            place += 1
        if numbers[0] in _LASTING_MESSAGES:
            yield b"\x06" + content[place - 2 : place + numbers[1]]
        place += numbers[1]


def _unescape(content: bytes) -> bytes:
    return content.replace(b"\0\0\3", b"\0\0")


class _Bits:
    """Reader of the numbers of a parameter set."""

    def __init__(self, content: bytes):
        self.text, self.place = "".join(f"{byte:08b}" for byte in _unescape(content)), 0

    def take(self, count: int) -> int:
        self.place += count
        if self.place > len(self.text):
            raise IndexError("The parameter set is cut.")
        return int(self.text[self.place - count : self.place] or "0", 2)

    def take_golomb(self) -> int:
        """Return an unsigned number, ue(v); signed ones have its length."""
        zeros = self.text.index("1", self.place) - self.place
        return self.take(2 * zeros + 1) - 1


def _is_plain_set(codec: str, unit: bytes) -> bool:
    """Return whether a parameter set allows neither fields nor pictures that are not shown."""
    if codec == "h264":
        return unit[0] & 31 != _H264_SPS or _has_frames_alone(_Bits(unit[1:]))
    if unit[0] >> 1 & 63 != _HEVC_PPS:
        return True
    bits = _Bits(unit[2:])
    bits.take_golomb(), bits.take_golomb(), bits.take(1)
    return not bits.take(1)  # output_flag_present_flag


def _has_frames_alone(bits: _Bits) -> bool:
    """Return frame_mbs_only_flag of a sequence parameter set of H.264, section 7.3.2.1.1; False with own scaling."""
    profile = bits.take(8)
    bits.take(16), bits.take_golomb()
    if profile in _H264_WITH_CHROMA:
        if bits.take_golomb() == 3:
            bits.take(1)
        bits.take_golomb(), bits.take_golomb(), bits.take(1)
        if bits.take(1):  # scaling lists, of lengths that only their numbers tell
            return False
    bits.take_golomb()
    order = bits.take_golomb()
    if order == 0:
        bits.take_golomb()
    elif order == 1:
        bits.take(1), bits.take_golomb(), bits.take_golomb()
        for _ in range(bits.take_golomb()):
            bits.take_golomb()
    bits.take_golomb(), bits.take(1), bits.take_golomb(), bits.take_golomb()
    return bool(bits.take(1))
