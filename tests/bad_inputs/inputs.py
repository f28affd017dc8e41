"""Cases of the processor: frames, pictures, video files, texts and chats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import NUMBERS, TEXTS, damaged


def call(folder: Path, /, **fields: Any) -> Any:
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
        "another byte order": lambda a: a.astype(">f4"),
        "long doubles": lambda a: a.astype(np.longdouble),
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
        "lists without end": _endless,
        "a sparse tensor": lambda a: _tensor(a).float().to_sparse(),
        "a quantized tensor": _quantized,
        "a tensor on meta": lambda a: _tensor(a).to("meta"),
        "a nested tensor": _nested,
        "frames of a million pixels a side": lambda a: np.broadcast_to(np.uint8(1), (1, 10**6, 10**6, 3)),
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
        "rescale_factor": {
            "0": 0.0,
            "NaN": np.nan,
            "Inf": np.inf,
            "a string": "x",
            "-1": -1.0,
            "1e300": 1e300,
            "1e-300": 1e-300,
        },
        "image_mean": {
            "a string": "x",
            "two": [0.5, 0.5],
            "NaN": [np.nan] * 3,
            "None in it": [None] * 3,
            "1e300": 1e300,
            "none": [],
        },
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
        "resample": {"a string": "x", "99": 99, "-1": -1, "a bool": True},
        "return_tensors": {"unknown": "xx", "a number": 5},
        "input_data_format": {"unknown": "sideways", "a number": 5, "the other": "channels_first"},
        "data_format": {"last": "channels_last", "unknown": "x"},
        "video_metadata": {
            "a string": "x",
            "a number": 5,
            "of another length": [{"fps": 1, "total_num_frames": 3}] * 2,
            "with a rate in words": [{"fps": "x", "total_num_frames": 3}],
            "with an endless rate": [{"fps": np.inf, "total_num_frames": 3}],
            "with frames beyond the end": [{"total_num_frames": 9, "frames_indices": [0, 3, 99]}],
            "with negative frames": [{"total_num_frames": 9, "frames_indices": [0, -3, 6]}],
            "with frames in words": [{"total_num_frames": 9, "frames_indices": "abc"}],
            "with halves of frames": [{"total_num_frames": 9, "frames_indices": [0.5, 1.5, 2.5]}],
            "with one number for frames": [{"total_num_frames": 9, "frames_indices": 5}],
            "with a number for a key": {5: 5},
        },
        "crop_size": {"a string": "x"},
        "device": {"unknown": "nonsense", "a float": 0.5, "bytes": b"cpu", "a bool": True},
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
    for name, value in {
        "num_frames": np.int64(2), "image_mean": np.full(3, 0.5), "image_std": np.float32(0.5),
        "rescale_factor": np.float32(1 / 255), "do_sample_frames": np.bool_(True),
    }.items():  # fmt: skip
        add(f"right: {name} of NumPy", lambda f, n=name, v=value: call(f, **{n: v}), expect="taken")
    for name in ("num_frames", "fps"):
        for what, value in NUMBERS.items():
            if value is not None and not (name == "fps" and what in ("1.5", "huge")):
                add(f"constructor: {name} {what}", lambda f, n=name, v=value: _video_processor(**{n: v}), name)
    for what, value in {"another form": {"a": 1}, "a string": "x", "negative": {"height": -1, "width": -1}}.items():
        add(f"constructor: size {what}", lambda f, v=value: _video_processor(size=v), "size", "height")
    add("constructor: size three", lambda f: _video_processor(size=[70, 70, 70]), "size")
    add("constructor: num_frames and fps", lambda f: _video_processor(num_frames=2, fps=2), "fps")
    add("constructor: unknown argument", lambda f: _video_processor(num_framess=2), "num_framess")


def _tensor(array: np.ndarray) -> Any:
    return __import__("torch").from_numpy(array)


def _endless(array: np.ndarray) -> list:
    found: list = []
    found.append(found)
    return found


def _quantized(array: np.ndarray) -> Any:
    import torch

    return torch.quantize_per_tensor(_tensor(array).float(), 1.0, 0, torch.quint8)


def _nested(array: np.ndarray) -> Any:
    import torch

    return torch.nested.nested_tensor([torch.zeros(24, 32, 3), torch.zeros(20, 32, 3)])


def _video_processor(**fields: Any) -> Any:
    from processing import IDE3DVideoProcessor

    return IDE3DVideoProcessor(**{"size": {"height": 70, "width": 70}, **fields})(goods.pixels())


def chat(*content: Any, role: Any = "user") -> list[dict]:
    """A chat of one message."""
    return [{"role": role, "content": list(content)}]


@door("processor: text, images, chats", "processing.IDE3DProcessor")
def texts(add: Callable[..., None]) -> None:
    def say(folder: Path, /, messages: Any, **options: Any) -> Any:
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
        "half of a pair": "<video>\ud800",
        "an array without axes": np.array("<video>x"),
    }.items():
        if what != "an int":
            add(
                what if what.startswith("text is") else f"text {what}",
                lambda f, v=value: call(f, text=v),
                "text",
                "video",
                expect="taken" if what == "None" else "refused",  # Without a text the pixels come alone.
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
                # These texts are shorter than what the tokenizer would cut.
                expect="taken" if (name, what) == ("truncation", "true") else "refused",
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
            "video",
            "image",
            "conversation",
            "fps",
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
    for name in ("text_kwargs", "videos_kwargs", "images_kwargs"):
        add(f"{name} a number", lambda f, n=name: call(f, **{n: 5}), name)
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
