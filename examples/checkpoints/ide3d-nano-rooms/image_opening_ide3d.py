"""Open whatever a person calls a picture: path, URL, base64 text, bytes, open file, `datasets` value or PIL image."""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from transformers.image_utils import is_pil_image

from .downloads_ide3d import check_not_special, download, find_local_path
from .image_wholeness_ide3d import lacks_end_of_gif

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif", ".avif",
)  # fmt: skip
# Pillow opens more, among them formats that start other programs (EPS) or that any bytes may resemble (TGA).
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
STILL_FORMATS = ("MPO", "HEIF")  # A second picture in these is a preview, or another shot of a burst.
DATA_URI = "data:image/"
MAX_PATH = 4096  # characters; longer text is no path
MAX_DOWNLOAD = 2**28  # bytes of one picture, 256 MiB
MIN_BYTES_PER_PICTURE = 38  # of APNG, which announces how many: each has its control chunk
_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 0b101  # TIFF: a page that is a thumbnail or a mask of another one


class RefusedImageError(ValueError):
    """A picture that can be read and is refused: the message is ours, not Pillow's."""


def is_image_path(item: Any) -> bool:
    """Return whether an item is a path, URL or `data:` URI of a picture."""
    if not isinstance(item, (str, os.PathLike)):
        return False
    path = os.fspath(item)
    if isinstance(path, str) and path.startswith(DATA_URI):
        return True
    return (urlsplit(path).path if "://" in path else path).lower().endswith(IMAGE_SUFFIXES)


def is_image(source: Any) -> bool:
    """Return whether a source is a picture, or several in one file.

    The ending of a path decides. Bytes, open files and paths without an ending are judged by their content.
    """
    if isinstance(source, (str, os.PathLike)) and (os.path.splitext(source)[1] or not os.path.isfile(source)):
        return is_image_path(source)
    try:
        with open_image(source):
            return True
    except (ValueError, TypeError, OSError):
        return False


def is_animation(source: Any) -> bool:
    """Return whether a source is one file of several pictures; URLs are not asked."""
    if isinstance(source, (str, os.PathLike)) and not os.path.isfile(source):
        return False
    try:
        with open_image(source) as image:
            return len(list_pages(image)) > 1
    except (ValueError, TypeError, OSError):
        return False


def import_pillow() -> tuple[Any, Any]:
    """Return Pillow's modules `Image` and `ImageOps`.

    Raises:
        ImportError: without Pillow.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("To read pictures, install Pillow (`pip install pillow`).") from error
    return Image, ImageOps


@contextmanager
def open_image(source: Any, name: str | None = None) -> Iterator[Any]:
    """Open a stored picture with Pillow, which reads the header first.

    Args:
        source (`Any`):
            Path, http, https or file URL, `data:` URI, base64 text, bytes, or an open file. Also a `datasets` value
            (`{"bytes": ..., "path": ...}`), or a PIL image, which is handed on as it is.
        name (`str`, *optional*):
            How errors call the picture; by default its path.

    Yields:
        `PIL.Image.Image`: as it is stored, neither turned nor converted.

    Raises:
        FileNotFoundError: when nothing is there.
        ConnectionError: for a URL that cannot be read.
        ValueError: for what Pillow cannot read, also within the block, and for more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`.
        TypeError: for what is no picture at all.
    """
    Image, _ = import_pillow()
    name = name or describe(source)
    stored = find_stored(source, name)
    try:
        if is_pil_image(stored):
            yield stored
            return
        Image.init()
        with Image.open(stored, formats=[known for known in IMAGE_FORMATS if known in Image.OPEN]) as image:
            _check_size(image)
            yield image
    except MemoryError:
        raise
    except RefusedImageError as error:  # a name that is ours alone: callers know ValueError
        raise ValueError(str(error)) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, DecompressionBombError and more.
        raise ValueError(f"{name} is no readable image ({error}). Remove it or copy it again.") from error


def find_stored(source: Any, name: str) -> Any:
    """Return the path, open file or PIL image of a source; a URL is downloaded."""
    if isinstance(source, dict) and not {"bytes", "path"}.isdisjoint(source):
        source = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if hasattr(source, "read") or is_pil_image(source):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "An image is a path, a URL, bytes, an open file, a PIL image, an array of 8 bit colours, or a dictionary "
            f'with "bytes" or "path", got {type(source).__name__}.'
        )
    address = os.fspath(source)
    path = find_local_path(address)
    if path is None:
        content = io.BytesIO()
        download(address, content, MAX_DOWNLOAD)
        content.seek(0)
        return content
    if os.path.isfile(path):
        return path
    if len(path) < MAX_PATH and "\0" not in path:
        check_not_special(path)
    content = _decode_base64(path)
    if content is None:
        raise FileNotFoundError(f"No image at {name}. Check the path; the current directory is {os.getcwd()}.")
    return io.BytesIO(content)


def open_page(image: Any, page: int) -> None:
    """Go to one of the pictures that [`list_pages`] names."""
    if page != image.tell():
        image.seek(page)
        _check_size(image)


def list_pages(image: Any) -> Sequence[int]:
    """Return the numbers of the pictures in an open image, without previews, thumbnails and masks.

    Args:
        image (`PIL.Image.Image`):
            Image as [`open_image`] yields it.

    Raises:
        ValueError: for an APNG that announces more pictures than its bytes can hold, or a GIF without its end.
    """
    place = image.tell()
    if image.format == "GIF" and image.fp and lacks_end_of_gif(image.fp):
        raise ValueError("it is cut off behind a picture")
    if not getattr(image, "is_animated", False) or image.format in STILL_FORMATS:
        return range(place, place + 1)
    count = image.n_frames
    if image.format == "PNG":
        start = image.fp.tell()
        size = image.fp.seek(0, os.SEEK_END)
        image.fp.seek(start)
        if count > size / MIN_BYTES_PER_PICTURE:
            raise ValueError(f"it announces {count} pictures in {size} bytes")
        return range(1 if image.info.get("default_image") else 0, count)  # The default is not in the animation.
    if image.format != "TIFF":
        return range(count)
    pages = []
    for page in range(count):
        image.seek(page)
        if not image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            pages.append(page)
    image.seek(place)
    return pages or range(1)


def describe(source: Any) -> str:
    """Return how an error calls a source: its path, or its kind."""
    if isinstance(source, dict):
        return str(source.get("path") or "the image")
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        return path if len(path) < 300 else f"the text {path[:40]}..."
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"the image of {len(source)} bytes"
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "the image")


def _decode_base64(text: str) -> bytes | None:
    """Return the picture in a `data:` URI or base64 text; None for other texts."""
    is_uri = text.startswith(DATA_URI)
    try:
        content = base64.b64decode("".join(text.partition(",")[2].split() if is_uri else text.split()), validate=True)
    except ValueError:
        return None
    return content if is_uri or is_image(content) else None


def _check_size(image: Any) -> None:
    most = import_pillow()[0].MAX_IMAGE_PIXELS  # Between once and twice this number Pillow warns only.
    if most is not None and image.width * image.height > most:
        raise ValueError(f"{image.width} x {image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS, {most}")
