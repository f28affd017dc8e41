"""Whether a JPEG file holds its end marker; cameras and phones write more behind it."""

import re

__all__ = ["holds_jpeg_end"]

_START, _END = b"\xff\xd8", 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # Within a scan these are pixels or restarts.


def holds_jpeg_end(content: bytes) -> bool:
    """Return whether the first picture of a JPEG file is followed by its end marker.

    Previews inside the header have markers of their own, so segments are walked by their lengths.

    Args:
        content: Bytes of the file.
    """
    if not content.startswith(_START):
        return False
    place = len(_START)
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == _END:
            return True
        # The pixels of a scan follow its header; everything else is skipped whole.
        place += max(2, int.from_bytes(content[place : place + 2], "big"))
    return False
