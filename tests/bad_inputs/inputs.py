"""Cases of the processor: frames, pictures, video files, texts and chats."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, NUMBERS, PATHS, TEXTS, damaged, make_fifo


def call(folder: Path, **fields: Any) -> Any:
    """Ask the processor about a video."""
    given = {"text": "<video>\nWhere?", "videos": goods.pixels(), "return_tensors": "pt", **fields}
    return goods.processor()(**{key: value for key, value in given.items() if value is not ...})


@door("processor: frames", "processing.IDE3DVideoProcessor", "processing.IDE3DProcessor")
def frames(add: Callable[..., None]) -> None:
    add("right: uint8", call, expect="taken")
    # A frame alone, and frames of another size or number, are right.
    skip = ("one axis less", "last axis one less", "last axis one more", "one entry less", "one entry more")
    for what in damaged(np.ones((3, 24, 32, 3)), skip):
        expect = "either" if what == "one axis more" else "refused"
        add(
            what,
            lambda f, w=what: call(f, videos=damaged(goods.pixels())[w]()),
            "video",
            "frame",
            "pixel",
            "path",
            "file",
            expect=expect,
        )
    right: dict[str, Callable[[np.ndarray], Any]] = {
        "channels first": lambda a: a.transpose(0, 3, 1, 2),
        "float 0..1 without rescaling": lambda a: a / 255,
        "a list of frames": list,
        "a tensor": lambda a: __import__("torch").from_numpy(a),
        "not contiguous": lambda a: a[:, ::2],
        "read only": lambda a: np.frombuffer(a.tobytes(), np.uint8).reshape(a.shape),
        "fewer frames": lambda a: a[:2],
    }
    for what, change in right.items():
        options = {"do_rescale": False} if "without" in what else {}
        add(f"right: {what}", lambda f, c=change, o=options: call(f, videos=c(goods.pixels()), **o), expect="taken")
    wrong: dict[str, Callable[[np.ndarray], Any]] = {
        "float depth 0..5000": lambda a: a.astype(np.float32) * 20,
        "float -1..1": lambda a: a / 127.5 - 1,
        "float 0..1 is divided again": lambda a: a / 255,
        "float64 1e300": lambda a: a * 1e300,
        "int16 to 5000": lambda a: a.astype(np.int16) * 20,
        "uint16": lambda a: a.astype(np.uint16) * 257,
        "int64": lambda a: a.astype(np.int64),
        "bool": lambda a: a > 100,
        "2 channels": lambda a: a[..., :2],
        "5 channels": lambda a: np.concatenate([a, a[..., :2]], -1),
        "frames of two sizes": lambda a: [a[0], a[1, :10]],
        "frames of two kinds": lambda a: [a[0], a[1].astype(np.float32)],
        "a list with None": lambda a: [a[0], None],
        "a list of numbers": lambda a: [1, 2, 3],
        "an empty list": lambda a: [],
        "a list of empty lists": lambda a: [[]],
        "None": lambda a: None,
        "a set": lambda a: {1, 2},
        "height 0": lambda a: a[:, :0],
        "width 0": lambda a: a[:, :, :0],
        "depth maps as frames": lambda a: a[..., 0].astype(np.float32),
        "height 3 is read as channels first": lambda a: a[:, :3, :, :],
        "two videos for one place": lambda a: [a, a],
        "a date": lambda a: np.datetime64("2020-01-01"),
    }
    for what, change in wrong.items():
        expect = "either" if what in ("bool", "int64", "height 3 is read as channels first") else "refused"
        add(
            what,
            lambda f, c=change: call(f, videos=c(goods.pixels())),
            "video",
            "frame",
            "pixel",
            "float",
            "channel",
            "rescal",
            expect=expect,
        )
    add("unknown argument of the call", lambda f: call(f, num_framess=2), "num_framess")
    for name, values in {
        "num_frames": {k: v for k, v in NUMBERS.items() if k != "None"} | {"more than there are": 9, "bool": True},
        "fps": {"0": 0, "-1": -1.0, "NaN": np.nan, "Inf": np.inf, "a string": "x", "a list": [1]},
        "do_sample_frames": {"a string": "no", "a number": 5},
        "do_rescale": {"a string": "no", "a number": 5},
        "do_normalize": {"a string": "no"},
        "do_resize": {"a string": "no", "a number": 5},
        "rescale_factor": {"0": 0.0, "NaN": np.nan, "Inf": np.inf, "a string": "x", "-1": -1.0},
        "image_mean": {"a string": "x", "two": [0.5, 0.5], "NaN": [np.nan] * 3, "None in it": [None] * 3},
        "image_std": {
            "zero": [0.0] * 3,
            "negative": [-0.5] * 3,
            "two": [0.5, 0.5],
            "NaN": [np.nan] * 3,
            "a string": "x",
        },
        "size": {
            "another": {"height": 42, "width": 42},
            "a string": "x",
            "no height": {"width": 70},
            "0": {"height": 0, "width": 0},
        },
        "resample": {"a string": "x", "99": 99, "-1": -1},
        "return_tensors": {"unknown": "xx", "a number": 5},
        "input_data_format": {"unknown": "sideways", "a number": 5, "the other": "channels_first"},
        "data_format": {"last": "channels_last", "unknown": "x"},
        "video_metadata": {
            "a string": "x",
            "a number": 5,
            "of another length": [{"fps": 1, "total_num_frames": 3}] * 2,
        },
        "crop_size": {"a string": "x"},
        "device": {"unknown": "nonsense"},
    }.items():
        for what, value in values.items():
            if (name, what) == ("num_frames", "Inf"):
                continue
            expect = "either" if name in ("crop_size", "do_normalize") else "refused"
            add(
                f"{name} {what}",
                lambda f, n=name, v=value: call(f, **{n: v}),
                name,
                "frame",
                "pixels" if name in ("size", "do_resize") else name,
                expect=expect,
            )
    for name in ("num_frames", "fps"):
        for what, value in NUMBERS.items():
            if value is not None and not (name == "fps" and what in ("1.5", "huge")):
                add(f"constructor: {name} {what}", lambda f, n=name, v=value: _video_processor(**{n: v}), name)
    for what, value in {"another form": {"a": 1}, "a string": "x", "negative": {"height": -1, "width": -1}}.items():
        add(f"constructor: size {what}", lambda f, v=value: _video_processor(size=v), "size", "height")
    add("constructor: num_frames and fps", lambda f: _video_processor(num_frames=2, fps=2), "fps")
    add("constructor: unknown argument", lambda f: _video_processor(num_framess=2), "num_framess")


def _video_processor(**fields: Any) -> Any:
    from processing import IDE3DVideoProcessor

    return IDE3DVideoProcessor(**{"size": {"height": 70, "width": 70}, **fields})(goods.pixels())


@door("pictures", "processing.IDE3DProcessor")
def pictures(add: Callable[..., None]) -> None:
    def write(folder: Path, form: str) -> Path:
        from PIL import Image

        path = folder / f"picture.{form.lower()}"
        Image.fromarray(goods.pixels()[0]).save(path, form)
        return path

    def read(folder: Path, image: Any) -> Any:
        return goods.processor()(text="<image>\nWhat?", images=image, return_tensors="pt")

    def in_chat(folder: Path, image: Any) -> Any:
        chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
        return goods.processor().apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")

    def as_frames(folder: Path, image: Any) -> Any:
        return call(folder, videos=[image, image])

    doors = {"image": read, "chat": in_chat, "frames": as_frames}
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        suffix = form.lower()
        for where, run in doors.items():
            add(f"right: {suffix} {where}", lambda f, r=run, form=form: r(f, str(write(f, form))), expect="taken")
            for what, change in FILES.items():
                # Without its end a BMP or TIFF may be whole enough.
                expect = "either" if what == "half" and form in ("GIF", "TIFF") else "refused"

                def damage(folder: Path, run: Any = run, form: str = form, change: Any = change) -> Any:
                    path = write(folder, form)
                    path.write_bytes(change(path.read_bytes()))
                    return run(folder, str(path))

                add(f"{suffix} {where}: {what}", damage, f"picture.{suffix}", expect=expect)
    for what, data in _headers().items():
        for where, run in doors.items():

            def header(folder: Path, run: Any = run, data: bytes = data) -> Any:
                (folder / "picture.png").write_bytes(data)
                return run(folder, str(folder / "picture.png"))

            add(f"png {where}: {what}", header, "picture.png")
    for what, make in PATHS.items():
        for where, run in doors.items():
            words = (
                "missing-file",
                "given",
                "pipe",
                "file",
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

            def path(folder: Path, run: Any = run, make: Any = make) -> Any:
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
        "header with a wrong sum": data[:20] + b"\x00" + data[21:],
    }


@door("video reader", "trainer.session.open_video")
def videos(add: Callable[..., None]) -> None:
    def read(folder: Path, suffix: str = "mp4", change: Callable[[bytes], bytes] = bytes, **options: Any) -> Any:
        path = goods.video_file(folder, suffix)
        path.write_bytes(change(path.read_bytes()))
        return call(folder, videos=str(path), **options)

    for suffix in ("mp4", "mkv", "webm", "avi"):
        add(f"right: {suffix}", partial(read, suffix=suffix), expect="taken")
        for what, change in FILES.items():
            if what != "half":
                add(f"{suffix} {what}", partial(read, suffix=suffix, change=change), f"video.{suffix}")
        for percent in (10, 40, 50, 80, 95, 99):
            title = "webm (vp9) cut at 50 %" if (suffix, percent) == ("webm", 50) else f"{suffix} cut at {percent} %"
            cut = partial(_cut, percent=percent)
            # What comes behind the last packet, an index, may be lost without harm.
            expect = "either" if percent == 99 else "refused"
            add(title, partial(read, suffix=suffix, change=cut), f"video.{suffix}", expect=expect)
        for seed in range(16):
            add(f"{suffix} with 20 bytes of damage, seed {seed}",
                partial(_or_right_pixels, suffix=suffix, seed=seed), f"video.{suffix}", expect="either")  # fmt: skip
        for what, size in {"a hole of 1000 bytes": 1000, "a hole of 100 bytes": 100}.items():
            add(
                f"{suffix} {what}",
                partial(read, suffix=suffix, change=partial(_hole, size=size)),
                f"video.{suffix}",
                expect="either",
            )
    for what, make in PATHS.items():

        def path(folder: Path, make: Any = make) -> Any:
            made = make(folder)
            return call(folder, videos=str(made) if isinstance(made, Path) else made)

        add(f"path {what}", path, "missing-file", "given", "pipe", "file", "loop", "video", "xxx", "/dev/full", "path")
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
    add("right: a folder", lambda f: call(f, videos=_frames(f, lambda p: None)), expect="taken")
    _open_video(add)


def _open_video(add: Callable[..., None]) -> None:
    def run(folder: Path, **fields: Any) -> Any:
        from trainer.session import open_video

        given = {"model": goods.model_folder(), "video": goods.video_file(folder), "device": "cpu", **fields}
        return open_video(given.pop("model"), given.pop("video"), **given)

    add("right: open_video", run, expect="taken")
    for name, values in {
        "num_frames": {k: v for k, v in NUMBERS.items() if k != "None"} | {"more than there are": 99, "bool": True},
        "max_memory": {k: v for k, v in NUMBERS.items() if k != "huge"},
        "device": {"unknown": "nonsense", **TEXTS},
        "dtype": {"unknown": "nonsense", "an int": 5, "a list": []},
        "video": {"missing": "missing-file.mp4", **TEXTS},
        "model": {"missing": "./missing-folder", "a list": [], "an int": 5},
    }.items():
        for what, value in values.items():
            expect = "either" if (name, what) in (("num_frames", "bool"), ("max_memory", "1.5")) else "refused"
            add(
                f"open_video: {name} {what}",
                lambda f, n=name, v=value: run(f, **{n: v}),
                name,
                "missing-f",
                "memory",
                "frame",
                expect=expect,
            )


def _frames(folder: Path, change: Callable[[Path], Any]) -> str:
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


def _or_right_pixels(folder: Path, suffix: str, seed: int) -> Any:
    """Read a damaged video; frames that differ from the right ones, without a word, are no right ones."""
    path = goods.video_file(folder, suffix)
    right = call(folder, videos=str(path))["pixel_values_videos"]
    path.write_bytes(scatter(path.read_bytes(), seed))
    found = call(folder, videos=str(path))["pixel_values_videos"]
    if found.shape != right.shape or float((found - right).abs().mean()) > 0.05:
        raise SilentDamageError(
            f"Frames differ by {float((found - right).abs().mean()) if found.shape == right.shape else found.shape}."
        )


class SilentDamageError(AssertionError):
    """Wrong pixels came without an error or a warning."""


def chat(*content: Any, role: Any = "user") -> list[dict]:
    """A chat of one message."""
    return [{"role": role, "content": list(content)}]


@door("processor: text, images, chats", "processing.IDE3DProcessor")
def texts(add: Callable[..., None]) -> None:
    def say(folder: Path, messages: Any, **options: Any) -> Any:
        given = {"tokenize": True, "return_dict": True, "return_tensors": "pt", **options}
        return goods.processor().apply_chat_template(messages, **given)

    video = {"type": "video", "video": goods.pixels()}
    word = {"type": "text", "text": "Where?"}
    add("right: a chat", lambda f: say(f, chat(video, word)), expect="taken")
    add("right: text content", lambda f: say(f, [{"role": "user", "content": "Where?"}]), expect="taken")
    add("right: a batch", lambda f: say(f, [chat(video, word), chat(video, word)], padding=True), expect="taken")
    add("right: an answer", lambda f: say(f, [*chat(video, word), *chat(word, role="assistant")]), expect="taken")
    add(
        "right: a path",
        lambda f: say(f, chat({"type": "video", "path": str(goods.video_file(f))}, word)),
        expect="taken",
    )
    for what, value in {
        **TEXTS,
        "text is an int": 5,
        "an empty list": [],
        "a list with None": ["<video>x", None],
    }.items():
        if what != "an int":
            add(
                what if what.startswith("text is") else f"text {what}",
                lambda f, v=value: call(f, text=v),
                "text",
                "video",
            )
    for what, value in {
        "an int": 5,
        "a float": 0.5,
        "a mapping": {"a": 1},
        "a set": {1},
        "a function": len,
        "a list of ints": [1],
    }.items():
        title = "image an int" if what == "an int" else f"image {what}"
        add(title, lambda f, v=value: call(f, text="<image>", videos=..., images=v), "image", "picture")
    for what, fields in {
        "a video without a place": {"text": "Where?"},
        "a place without a video": {"videos": ...},
        "two places, one video": {"text": "<video><video>"},
        "no input at all": {"text": ..., "videos": ...},
        "audio": {"audio": np.zeros(9)},
        "texts and videos of other numbers": {"text": ["<video>", "<video>", "<video>"], "videos": [goods.pixels()]},
        "an image without a place": {"images": goods.pixels()[0]},
    }.items():
        add(what, lambda f, fields=fields: call(f, **fields), "video", "text", "audio", "image", "input")
    for name, values in {
        "padding": {"unknown": "x", "a number": 5}, "truncation": {"true": True, "unknown": "x"},
        "max_length": {"5": 5, "-1": -1, "a string": "x"}, "padding_side": {"unknown": "up", "a number": 5},
        "text_pair": {"a text": "x"}, "return_tensors": {"unknown": "xx"},
    }.items():  # fmt: skip
        for what, value in values.items():
            options = (
                {"truncation": True}
                if name == "max_length"
                else {"text": ["<video>\nx", "<video>\nx y"], "videos": [goods.pixels()] * 2, "padding": True}
            )
            options = {**options, name: value}
            add(
                f"{name} {what}",
                lambda f, o=options: call(f, **o),
                name,
                "token count",
                reason="arguments of the tokenizer are Transformers' own",
            )
    messages: dict[str, Any] = {
        "None": None, "content an int": chat() and [{"role": "user", "content": 5}],
        "content None": [{"role": "user", "content": None}], "content a mapping": [{"role": "user", "content": {"type": "text"}}],
        "content empty": [{"role": "user", "content": []}], "content empty text": [{"role": "user", "content": ""}],
        "unknown role": chat(word, role="alien"), "role an int": chat(word, role=5), "role None": chat(word, role=None),
        "role in capitals": chat(word, role="User"), "role tool": chat(word, role="tool"),
        "no role": [{"content": "x"}], "no content": [{"role": "user"}], "a string": "Where?", "an int": 5,
        "a list of strings": ["Where?"], "a list of ints": [5], "a list with None": [None], "an empty list": [], "a mapping": {"role": "user", "content": "x"},
        "bytes": b"x", "another key of a message": [{"role": "user", "content": "x", "contents": "y"}],
        "part a string": [{"role": "user", "content": ["x"]}], "part an int": [{"role": "user", "content": [5]}],
        "part None": [{"role": "user", "content": [None]}],
        "part without type": chat({"text": "x"}), "part type unknown": chat({"type": "smell", "smell": 1}),
        "part type an int": chat({"type": 5}), "part type audio": chat({"type": "audio", "audio": "x.wav"}),
        "text part without text": chat({"type": "text"}), "text part of an int": chat({"type": "text", "text": 5}),
        "text part of None": chat({"type": "text", "text": None}), "text part of a list": chat({"type": "text", "text": ["x"]}),
        "text part under content": chat({"type": "text", "content": "x"}), "another key of a part": chat({"type": "text", "text": "x", "bold": True}),
        "video part without video": chat({"type": "video"}, word), "video part of an int": chat({"type": "video", "video": 5}, word),
        "video part of None": chat({"type": "video", "video": None}, word), "video part misspelt": chat({"type": "video", "vidoe": "x.mp4"}, word),
        "video part with num_frames a string": chat({**video, "num_frames": "x"}, word), "video part with fps 0": chat({**video, "fps": 0}, word),
        "image part without image": chat({"type": "image"}, word), "image part of an int": chat({"type": "image", "image": 5}, word),
        "image_url part": chat({"type": "image_url", "image_url": {"url": "x.png"}}, word),
        "a placeholder typed in the text": chat(video, {"type": "text", "text": "<video>"}),
        "system after the user": [*chat(word), {"role": "system", "content": "x"}],
    }  # fmt: skip
    for what, value in messages.items():
        expect = (
            "either"
            if what
            in (
                "content empty text",
                "a mapping",
                "system after the user",
                "part a string",
                "a string",
                "content empty",
            )
            else "refused"
        )
        add(
            f"chat: {what}",
            lambda f, v=value: say(f, v),
            "chat",
            "message",
            "role",
            "content",
            "part",
            "type",
            "video",
            "image",
            "text",
            "conversation",
            expect=expect,
        )
    for name, values in {"add_generation_prompt": {"a string": "no"}, "continue_final_message": {"of the user": True},
                         "chat_template": {"broken": "{% if %}", "a number": 5, "raises": "{{ raise_exception('x') }}"},
                         "tools": {"a list": [{"name": "x"}]}, "documents": {"a list": [{"title": "x"}]},
                         "unknown_option": {"x": 1}, "num_frames": {"-1": -1, "a string": "x"},
                         "return_dict": {"a string": "no"}, "tokenize": {"a string": "no"}}.items():  # fmt: skip
        for what, value in values.items():
            expect = (
                "either"
                if name in ("add_generation_prompt", "return_dict", "tokenize", "continue_final_message")
                else "refused"
            )
            add(f"chat: {name} {what}", lambda f, n=name, v=value: say(f, chat(video, word), **{n: v}), name, "template", expect=expect,
                reason="Transformers renders templates")  # fmt: skip
    for name in ("patch_size", "image_size", "spatial_pool_stride"):
        for what, value in NUMBERS.items():
            title = f"constructor: {name} {what}"
            add(title, lambda f, n=name, v=value: _processor(**{n: v}), name)
    for name in ("image_token", "video_token", "ground_token"):
        for what, value in {**TEXTS, "unknown": "<nonsense>", "empty": ""}.items():
            add(f"constructor: {name} {what}", lambda f, n=name, v=value: _processor(**{n: v}), name, "token")
    for name in ("image_processor", "tokenizer", "video_processor"):
        for what, value in {"None": None, "a string": "x", "an int": 5}.items():
            add(f"constructor: {name} {what}", lambda f, n=name, v=value: _processor(**{n: v}), name, "tokenizer")
    add("constructor: two tokens the same", lambda f: _processor(image_token="<video>"), "token")
    add("constructor: image smaller than a patch", lambda f: _processor(image_size=7), "image_size")


def _processor(**fields: Any) -> Any:
    from processing import IDE3DProcessor

    right = goods.processor()
    given = {name: getattr(right, name) for name in ("image_processor", "tokenizer", "video_processor")}
    given |= {"patch_size": 14, "image_size": 70, "spatial_pool_stride": 2, **fields}
    return IDE3DProcessor(**given)
