"""Cases of pictures and video files."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import OtherPixelsError, door
from bad_inputs.damage import FILES, NUMBERS, PATHS, TEXTS, make_fifo
from bad_inputs.inputs import call

LONG = 60  # Frames of a video that has several clusters of Matroska, 12 s.


@door("pictures", "processing.IDE3DProcessor")
def pictures(add: Callable[..., None]) -> None:
    def write(folder: Path, /, form: str) -> Path:
        from PIL import Image

        path = folder / f"picture.{form.lower()}"
        Image.fromarray(goods.pixels()[0]).save(path, form)
        return path

    def read(folder: Path, /, image: Any) -> Any:
        return goods.processor()(text="<image>\nWhat?", images=image, return_tensors="pt")

    def in_chat(folder: Path, /, image: Any) -> Any:
        chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
        return goods.processor().apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")

    def as_frames(folder: Path, /, image: Any) -> Any:
        return call(folder, videos=[image, image])

    doors = {"image": read, "chat": in_chat, "frames": as_frames}
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        suffix = form.lower()
        for where, run in doors.items():
            add(f"right: {suffix} {where}", lambda f, r=run, form=form: r(f, str(write(f, form))), expect="taken")
            for what, change in FILES.items():
                # Without its end a BMP or TIFF may be whole enough.
                expect = "either" if what == "half" and form in ("GIF", "TIFF") else "refused"

                def damage(folder: Path, /, run: Any = run, form: str = form, change: Any = change) -> Any:
                    path = write(folder, form)
                    path.write_bytes(change(path.read_bytes()))
                    return run(folder, str(path))

                add(f"{suffix} {where}: {what}", damage, f"picture.{suffix}", expect=expect)
    for what, data in _headers().items():
        for where, run in doors.items():

            def header(folder: Path, /, run: Any = run, data: bytes = data) -> Any:
                (folder / "picture.png").write_bytes(data)
                return run(folder, str(folder / "picture.png"))

            add(f"png {where}: {what}", header, "picture.png")
    for where, run in doors.items():

        def short(folder: Path, /, run: Any = run) -> Any:
            path = write(folder, "JPEG")
            data = path.read_bytes()
            path.write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")
            return run(folder, str(path))

        add(f"jpeg {where}: cut and ended", short, "picture.jpeg")
        for kind in (bytearray, memoryview):
            add(
                f"right: {kind.__name__} {where}",
                lambda f, r=run, k=kind: r(f, k(write(f, "PNG").read_bytes())),
                expect="taken",
            )
    for what, make in PATHS.items():
        for where, run in doors.items():
            words = (
                "missing-file",
                "given",
                "pipe",
                "loop",
                "image",
                "picture",
                "xxx",
                "/dev/full",
                "path",
                "frame",
                "video",
            )
            expect = "either" if what == "a folder" and where == "frames" else "refused"

            def path(folder: Path, /, run: Any = run, make: Any = make) -> Any:
                made = make(folder)
                return run(folder, str(made) if isinstance(made, Path) else made)

            add(f"{where}: path {what}", path, *words, expect=expect)
    for what, change in {
        "float 0..1": lambda a: a / 255, "float to 5000": lambda a: a * 20.0, "uint16": lambda a: a.astype(np.uint16) * 257,
        "NaN": lambda a: np.full(a.shape, np.nan), "2 channels": lambda a: a[..., :2], "no pixel": lambda a: a[:0],
        "strings": lambda a: a.astype(str), "objects": lambda a: a.astype(object), "complex": lambda a: a * 1j,
        "float64 1e300": lambda a: a * 1e300, "rank 1": lambda a: a.ravel(), "rank 5": lambda a: a[None, None],
        "bool": lambda a: a > 9, "negative": lambda a: -a.astype(np.int16), "-1..1": lambda a: a / 127.5 - 1,
    }.items():  # fmt: skip
        expect = "either" if what == "bool" else "refused"
        add(
            f"image array {what}",
            lambda f, c=change: read(f, c(goods.pixels()[0])),
            "image",
            "pixel",
            "float",
            "frame",
            expect=expect,
        )
    for what, value in {
        "bad base64": "data:image/png;base64,!!!", "no scheme": "://x", "ftp": "ftp://example.org/x.png",
        "file URL": "file:///nonexistent-file.png", "javascript": "javascript:alert(1)",
        "an address without a host": "http:///x.png", "an address of another port": "http://127.0.0.1:1/x.png",
        "a link-local address": "http://169.254.169.254/latest", "a mapping": {"a": 1}, "None": None, "bytes": b"x", "an int": 5,
        "a tuple": (1, 2),
    }.items():  # fmt: skip
        add(f"chat: image {what}", lambda f, v=value: in_chat(f, v), "image", "picture", "nonexistent-file", "ftp", "://", "x.png",
            "169.254", "path", "scheme", "none", "base64")  # fmt: skip


def _headers() -> dict[str, bytes]:
    """PNG files whose headers say what is not so."""
    import struct
    import zlib

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    data = stream.getvalue()

    def sized(width: int, height: int) -> bytes:
        head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]

    return {
        "header of 65535 x 65535": sized(65535, 65535),
        "header of 2^31 x 1": sized(2**31 - 1, 1),
        "header of 0 x 0": sized(0, 0),
        "header of more rows": sized(8, 20),
        "header of fewer rows": sized(8, 5),
        "header of more columns": sized(9, 8),
        "pixels with a wrong sum": data[:45] + bytes([data[45] ^ 1]) + data[46:],
        "header with a wrong sum": data[:29] + bytes([data[29] ^ 0xFF]) + data[30:],
    }


@door("video reader", "trainer.session.open_video", "trainer.session.show_video")
def videos(add: Callable[..., None]) -> None:
    def read(folder: Path, /, suffix: str = "mp4", change: Callable[[bytes], bytes] = bytes, **options: Any) -> Any:
        path = goods.video_file(folder, suffix, LONG)
        path.write_bytes(change(path.read_bytes()))
        return call(folder, videos=str(path), **options)

    for suffix in ("mp4", "mkv", "webm", "avi"):
        add(f"right: {suffix}", partial(read, suffix=suffix), expect="taken")
        for what, change in FILES.items():
            if what != "half":
                # A reader may find the content in spite of a broken signature: then it has to be the right one.
                expect = "either" if what == "binary" else "refused"
                damaged = partial(_or_right_pixels, suffix=suffix, change=change)
                add(f"{suffix} {what}", damaged, f"video.{suffix}", expect=expect)
        for percent in (10, 40, 50, 80, 95, 99):
            title = "webm (vp9) cut at 50 %" if (suffix, percent) == ("webm", 50) else f"{suffix} cut at {percent} %"
            cut = partial(_cut, percent=percent)
            # What comes behind the last packet, an index, may be lost without harm.
            expect = "either" if percent == 99 else "refused"
            add(title, partial(read, suffix=suffix, change=cut), f"video.{suffix}", expect=expect)
        for seed in range(16):
            add(f"{suffix} with 20 bytes of damage, seed {seed}",
                partial(_or_right_pixels, suffix=suffix, change=partial(scatter, seed=seed)), f"video.{suffix}", expect="either")  # fmt: skip
        for what, size in {"a hole of 1000 bytes": 1000, "a hole of 100 bytes": 100}.items():
            add(
                f"{suffix} {what}",
                partial(read, suffix=suffix, change=partial(_hole, size=size)),
                f"video.{suffix}",
                expect="either",
            )
    for what, make in PATHS.items():

        def path(folder: Path, /, make: Any = make) -> Any:
            made = make(folder)
            return call(folder, videos=str(made) if isinstance(made, Path) else made)

        words = ("missing-file", "given", "pipe", "loop", "video", "xxx", "/dev/full", "path", "No frames: the folder")
        add(f"path {what}", path, *words)
    for what, value in {
        "bytes of nothing": b"", "bytes of garbage": b"\x01" * 500, "an address without a host": "http:///x.mp4",
        "an address nobody answers": "http://127.0.0.1:1/x.mp4", "ftp": "ftp://127.0.0.1/x.mp4", "rtsp": "rtsp://127.0.0.1:1/x",
        "concat": "concat:/etc/passwd", "a pipe of ffmpeg": "pipe:0", "a subfile": "subfile,,start,0,end,9,,:/etc/passwd",
        "a link-local address": "http://169.254.169.254/x.mp4", "file URL": "file:///nonexistent-file.mp4",
        "a playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", "a list of concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n", "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "a WAV": b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x44\xac\x00\x00\x88\x58\x01\x00\x02\x00\x10\x00data\x00\x00\x00\x00",
    }.items():  # fmt: skip
        add(what, lambda f, v=value: call(f, videos=v), "video", "x.mp4", "nonexistent-file", "passwd", "rtsp", "pipe:0",
            "169.254", "bytes", "no image", "ftp")  # fmt: skip
    for what, count in {"a video of one frame": 1, "a video of two frames": 2}.items():
        add(f"right: {what}", lambda f, c=count: call(f, videos=str(goods.video_file(f, "mp4", c))), expect="taken")
    add("a folder without pictures", lambda f: ((f / "frames").mkdir(), call(f, videos=str(f / "frames"))), "frames")
    add(
        "a folder with one broken picture",
        lambda f: call(f, videos=_frames(f, lambda p: p.write_bytes(b"x"))),
        "1.png",
    )
    add("a folder with a pipe", lambda f: call(f, videos=_frames(f, make_fifo)), "1.png")
    add(
        "a folder with two sizes",
        lambda f: call(f, videos=_frames(f, lambda p: goods.write_picture(p, 9, 9, "PNG"))),
        "1.png",
        "size",
    )
    for what, value in {"bytes a number": {"bytes": 5}, "a path of a number": {"path": 5}}.items():
        add(f"a row with {what}", lambda f, v=value: call(f, videos=v), "video", "path")
    add("right: a folder", lambda f: call(f, videos=_frames(f, lambda p: None)), expect="taken")
    _open_video(add)


def _open_video(add: Callable[..., None]) -> None:
    def run(folder: Path, /, **fields: Any) -> Any:
        from trainer.session import open_video

        given = {"model": goods.model_folder(), "video": goods.video_file(folder), "device": "cpu", **fields}
        return open_video(given.pop("model"), given.pop("video"), **given)

    def show(folder: Path, /, **fields: Any) -> Any:
        from trainer.session import show_video

        given = {"model": goods.model(), "processor": goods.processor(), "video": goods.video_file(folder), **fields}
        return show_video(given.pop("model"), given.pop("processor"), given.pop("video"), **given)

    add("right: open_video", run, expect="taken")
    add("right: show_video", show, expect="taken")
    for name, values in {
        "model": {"a folder": "folder", "None": None}, "processor": {"a folder": "folder", "None": None}, "video": {"missing": "missing-file.mp4", "None": None},
        "max_seconds": {k: v for k, v in NUMBERS.items() if k != "None"} | {"too few": 1e-3},
    }.items():  # fmt: skip
        for what, value in values.items():
            expect = "either" if (name, what) in (("max_seconds", "1.5"), ("max_seconds", "huge")) else "refused"
            words = (name, "missing-f", "taken")
            add(f"show_video: {name} {what}", lambda f, n=name, v=value: show(f, **{n: v}), *words, expect=expect)
    for name, values in {
        "num_frames": {k: v for k, v in NUMBERS.items() if k != "None"} | {"more than there are": 99, "bool": True},
        "max_memory": {k: v for k, v in NUMBERS.items() if k != "huge"},
        "device": {"unknown": "nonsense", **TEXTS},
        "dtype": {"unknown": "nonsense", "an int": 5, "a list": []},
        "video": {"missing": "missing-file.mp4", **TEXTS},
        "model": {"missing": "./missing-folder", "a list": [], "an int": 5},
    }.items():
        for what, value in values.items():
            expect = (
                "either"
                if (name, what) in (("num_frames", "bool"), ("max_memory", "1.5"), ("max_memory", "Inf"))
                else "refused"
            )
            add(
                f"open_video: {name} {what}",
                lambda f, n=name, v=value: run(f, **{n: v}),
                name,
                "missing-f",
                "memory",
                "frame",
                expect=expect,
            )


def _frames(folder: Path, /, change: Callable[[Path], Any]) -> str:
    path = folder / "frames"
    path.mkdir()
    for index in range(3):
        goods.write_picture(path / f"{index}.png", 24, 32, "PNG")
    (path / "1.png").unlink()
    goods.write_picture(path / "1.png", 24, 32, "PNG")
    change(path / "1.png")
    return str(path)


def _cut(data: bytes, percent: int) -> bytes:
    return data[: len(data) * percent // 100]


def _hole(data: bytes, size: int) -> bytes:
    start = len(data) // 2
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def scatter(data: bytes, seed: int, count: int = 20) -> bytes:
    """Replace some bytes by others."""
    rng = np.random.default_rng(seed)
    copy = bytearray(data)
    for place in rng.integers(0, len(data), count):
        copy[place] = int(rng.integers(0, 256))
    return bytes(copy)


def _or_right_pixels(folder: Path, /, suffix: str, change: Callable[[bytes], bytes]) -> Any:
    """Read a damaged video; frames that differ from the right ones, without a word, are no right ones."""
    path = goods.video_file(folder, suffix, LONG)
    right = call(folder, videos=str(path))["pixel_values_videos"]
    path.write_bytes(change(path.read_bytes()))
    found = call(folder, videos=str(path))["pixel_values_videos"]
    if found.shape != right.shape or float((found - right).abs().mean()) > 0.05:
        raise OtherPixelsError(
            f"Frames differ by {float((found - right).abs().mean()) if found.shape == right.shape else found.shape}."
        )
