"""3D boxes in words: the strict JSON in which a model says where things are, and its parser.

An answer is a list with one entry a box, an empty list where there is no such object:

    [{"frame":2,"center":[-34,12,231],"size":[61,88,58],"yaw":-12}]

`frame` is the index of the frame that shows the object best. Centre, size and yaw are those of `CameraBox`, in whole
centimetres and degrees. Nothing of it needs depth, pose or intrinsics.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

from processing.argument_rules import check_choice, check_text, check_whole
from processing.oriented_boxes import CameraBox

__all__ = ["MAX_BOXES", "NumberStyle", "key_tokens", "number_tokens", "parse_boxes", "write_boxes"]

NumberStyle = Literal["digits", "bins", "tokens"]
MAX_BOXES = 64  # an answer with more is no list of what is there
_MAX_LETTERS = 20_000  # of an answer; 64 boxes take a third of it
_KEYS = ("frame", "center", "size", "yaw")
_MAX_CENTIMETRES = 10_000  # no room is larger
_MAX_DEGREES = 180
# Bins: the same 512 names for all measures, so that 512 tokens suffice.
NUM_BINS = 512
_CENTER_STEP, _SIZE_STEP = (
    0.04,
    0.02,
)  # metres a bin: centres within 10.24 m of the lens on each axis, sizes to 10.24 m
_YAW_ZERO = 90  # bin of yaw 0; a degree a bin
_TOKEN = re.compile(r"<bin_(0|[1-9][0-9]{0,2})>")


def number_tokens() -> list[str]:
    """Return the tokens of the style "tokens", which a tokenizer must have as whole words.

    They are ordinary words to a tokenizer, not special ones: decoding must not skip them.
    """
    return [f"<bin_{index}>" for index in range(NUM_BINS)]


def key_tokens() -> list[str]:
    """Return the words between the numbers of the style "tokens".

    A tokenizer may lack them and spell them; with them an answer is short, and its numbers are near the question. No
    other text has them.
    """
    return ['[{"frame":', ',{"frame":', ',"center":"', '","size":"', '","yaw":"']


def write_boxes(boxes: Sequence[CameraBox], *, numbers: NumberStyle = "digits") -> str:
    """Write boxes as the JSON of an answer.

    Args:
        boxes: Boxes in the order of the answer; none says that there is no such object.
        numbers: Way of writing measures. "digits" are whole centimetres and degrees, "bins" indices of 512 bins (4 cm
            a bin of the centre, 2 cm of the size, 1 degree of the yaw), "tokens" the same bins as a word each.

    Returns:
        JSON without blanks. It rounds by at most half a step; sizes are at least one step.

    Raises:
        TypeError: If `boxes` is no sequence of `CameraBox`.
        ValueError: If `numbers` is unknown, there are more than `MAX_BOXES` boxes, or a measure is out of range.

    Example:
        >>> write_boxes([CameraBox(2, (-0.34, 0.12, 2.31), (0.61, 0.88, 0.58), -0.21)])
        '[{"frame":2,"center":[-34,12,231],"size":[61,88,58],"yaw":-12}]'
    """
    check_choice(numbers, get_args(NumberStyle), "numbers")
    if not isinstance(boxes, (list, tuple)) or not all(isinstance(box, CameraBox) for box in boxes):
        raise TypeError(f"`boxes` must be a list of CameraBox, got {boxes!r:.100} ({type(boxes).__name__}).")
    if len(boxes) > MAX_BOXES:
        raise ValueError(f"`boxes` must be at most {MAX_BOXES}, got {len(boxes)}.")
    wrap = _as_tokens if numbers == "tokens" else list
    rows = []
    for index, box in enumerate(boxes):
        center, size, yaw = _as_whole(box, numbers == "digits", f"boxes[{index}]")
        yaw = wrap([yaw]) if numbers == "tokens" else yaw
        rows.append({"frame": box.frame, "center": wrap(center), "size": wrap(size), "yaw": yaw})
    return json.dumps(rows, separators=(",", ":"))


def _as_whole(box: CameraBox, in_digits: bool, name: str) -> tuple[list[int], list[int], int]:
    """Return centre, size and yaw as the whole numbers that are written."""
    degrees = math.degrees(box.yaw)
    degrees = round(degrees - 360 * math.floor(degrees / 360 + 0.5))
    if in_digits:
        center, size = [round(100 * c) for c in box.center], [max(round(100 * s), 1) for s in box.size]
        yaw, limits = degrees, ((-_MAX_CENTIMETRES, _MAX_CENTIMETRES), (1, _MAX_CENTIMETRES))
    else:
        center = [math.floor(c / _CENTER_STEP) + NUM_BINS // 2 for c in box.center]
        size = [max(math.ceil(s / _SIZE_STEP) - 1, 0) for s in box.size]
        # A box is the same after half a turn.
        yaw = (degrees + _YAW_ZERO) % 180
        limits = ((0, NUM_BINS - 1), (0, NUM_BINS - 1))
    for what, values, (low, high) in zip(("center", "size"), (center, size), limits, strict=True):
        if min(values) < low or max(values) > high:
            kind = "digits" if in_digits else "bins"
            raise ValueError(f"`{name}`: the {what} {getattr(box, what)} is out of the range that {kind} can write.")
    return center, size, yaw


def _as_tokens(values: Sequence[int]) -> str:
    return "".join(f"<bin_{value}>" for value in values)


def parse_boxes(text: str, *, numbers: NumberStyle = "digits", num_frames: int | None = None) -> tuple[CameraBox, ...]:
    """Parse the JSON of an answer; anything that is not exactly of its form raises.

    Args:
        text: Answer of a model; blanks around it, and between the parts of JSON, are no fault.
        numbers: Way in which measures are written, see `write_boxes`.
        num_frames: Number of frames that were shown, so that a frame beyond is a fault; None takes any.

    Returns:
        Boxes in the order of the answer. A bin stands for its middle.

    Raises:
        TypeError: If `text` is no text.
        ValueError: If `numbers` is unknown or `num_frames` below 1; or if the text is no answer: no JSON list, another
            or a missing key, a key twice, a number that is not whole or out of range, more than `MAX_BOXES` boxes.

    Example:
        >>> parse_boxes('[{"frame":0,"center":[0,-20,150],"size":[40,80,40],"yaw":0}]')[0].center
        (0.0, -0.2, 1.5)
        >>> parse_boxes("[]")
        ()
    """
    check_text(text, "text")
    check_choice(numbers, get_args(NumberStyle), "numbers")
    last = None if num_frames is None else check_whole(num_frames, "num_frames", 1) - 1
    if len(text) > _MAX_LETTERS:
        raise ValueError(f"The answer has {len(text)} letters, more than any list of {MAX_BOXES} boxes.")
    try:
        rows = json.loads(text, object_pairs_hook=_as_row, parse_constant=_refuse, parse_float=_refuse)
    except RecursionError:
        raise ValueError("The answer is no list of boxes: it is nested without end.") from None
    except ValueError as error:
        raise ValueError(f"The answer is no strict JSON ({error}), got {text!r:.100}.") from None
    if not isinstance(rows, list):
        raise ValueError(f"The answer must be a JSON list of boxes, got {text!r:.100}.")
    if len(rows) > MAX_BOXES:
        raise ValueError(f"The answer must have at most {MAX_BOXES} boxes, it has {len(rows)}.")
    return tuple(_read_row(row, index, numbers, last) for index, row in enumerate(rows))


def _as_row(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key is there twice")
    return row


def _refuse(number: str) -> None:
    raise ValueError(f"{number} is no whole number")


def _read_row(row: Any, index: int, numbers: str, last: int | None) -> CameraBox:
    """Return the box of one entry of an answer."""
    where = f"Box {index} of the answer"
    if not isinstance(row, dict) or set(row) != set(_KEYS):
        raise ValueError(f"{where} must have exactly {', '.join(_KEYS)}, got {row!r:.100}.")
    frame = _read_whole(row["frame"], f"{where}: frame", 0, last)
    if numbers == "digits":
        center = [v / 100 for v in _read_list(row, "center", where, -_MAX_CENTIMETRES, _MAX_CENTIMETRES)]
        size = [v / 100 for v in _read_list(row, "size", where, 1, _MAX_CENTIMETRES)]
        yaw = _read_whole(row["yaw"], f"{where}: yaw", -_MAX_DEGREES, _MAX_DEGREES)
    else:
        if numbers == "tokens":
            row = {key: _read_tokens(row[key], key, where) for key in _KEYS[1:]}
        center = [(v - NUM_BINS // 2 + 0.5) * _CENTER_STEP for v in _read_list(row, "center", where, 0, NUM_BINS - 1)]
        size = [(v + 0.5) * _SIZE_STEP for v in _read_list(row, "size", where, 0, NUM_BINS - 1)]
        yaw = _read_whole(row["yaw"], f"{where}: yaw", 0, 179) - _YAW_ZERO
    return CameraBox(frame, tuple(center), tuple(size), math.radians(yaw))


def _read_tokens(value: Any, key: str, where: str) -> list[int] | int:
    """Return the bins of a text of tokens; one bin alone for the yaw."""
    count = 1 if key == "yaw" else 3
    if not isinstance(value, str) or not re.fullmatch(f"(?:{_TOKEN.pattern}){{{count}}}", value):
        raise ValueError(f"{where}: {key} must be {count} of <bin_0> to <bin_{NUM_BINS - 1}>, got {value!r:.100}.")
    found = [int(name) for name in _TOKEN.findall(value)]
    return found[0] if key == "yaw" else found


def _read_list(row: dict[str, Any], key: str, where: str, low: int, high: int) -> list[int]:
    values = row[key]
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(f"{where}: {key} must be three whole numbers, got {values!r:.100}.")
    return [_read_whole(value, f"{where}: {key}", low, high) for value in values]


def _read_whole(value: Any, what: str, low: int, high: int | None) -> int:
    if type(value) is not int:
        raise ValueError(f"{what} must be a whole number, got {value!r:.100}.")
    if value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{what} must be {span}, got {str(value)[:20]}.")
    return value
