"""Boxes in words: each way of writing comes back, and what is not exactly of the form is no answer."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.boxes_in_words import MAX_BOXES, NUM_BINS, number_tokens, parse_boxes, write_boxes
from processing.oriented_boxes import CameraBox

CHAIR = CameraBox(2, (-0.34, 0.12, 2.31), (0.61, 0.88, 0.58), math.radians(-12))
ROW = {"frame": 2, "center": [-34, 12, 231], "size": [61, 88, 58], "yaw": -12}
STYLES = ("digits", "bins", "tokens")
# Half a step of centre and size, metres, and of the yaw, radians.
ROUNDING = {"digits": (0.005, 0.005), "bins": (0.02, 0.01), "tokens": (0.02, 0.01)}
HALF_A_DEGREE = math.radians(0.5)

measure, size = st.floats(-10, 10), st.floats(0.001, 10)
boxes = st.lists(
    st.builds(
        CameraBox,
        st.integers(0, 40),
        st.tuples(measure, measure, measure),
        st.tuples(size, size, size),
        st.floats(-7, 7),
    ),
    max_size=4,
)


class TestWords:
    def test_digits_by_hand(self):
        assert write_boxes([CHAIR]) == '[{"frame":2,"center":[-34,12,231],"size":[61,88,58],"yaw":-12}]'

    def test_bins_by_hand(self):
        """-0.34 / 0.04 = -8.5, bin 256 - 9; 0.61 lies in (30, 31] steps of 2 cm, bin 30; yaw 90 - 12."""
        assert (
            write_boxes([CHAIR], numbers="bins") == '[{"frame":2,"center":[247,259,313],"size":[30,43,28],"yaw":78}]'
        )

    def test_tokens_by_hand(self):
        assert write_boxes([CHAIR], numbers="tokens") == (
            '[{"frame":2,"center":"<bin_247><bin_259><bin_313>","size":"<bin_30><bin_43><bin_28>","yaw":"<bin_78>"}]'
        )
        assert len(set(number_tokens())) == NUM_BINS and number_tokens()[78] == "<bin_78>"

    @pytest.mark.parametrize("numbers", STYLES)
    def test_no_object_is_an_empty_list(self, numbers):
        assert write_boxes([], numbers=numbers) == "[]"
        assert parse_boxes(" [ ]\n", numbers=numbers) == ()

    @pytest.mark.parametrize("numbers", STYLES)
    @settings(max_examples=80, derandomize=True, deadline=None)
    @given(written=boxes)
    def test_what_is_written_comes_back_within_half_a_step(self, numbers, written):
        text = write_boxes(written, numbers=numbers)
        read = parse_boxes(text, numbers=numbers, num_frames=41)
        assert len(read) == len(written)
        center_step, size_step = ROUNDING[numbers]
        for found, meant in zip(read, written, strict=True):
            assert found.frame == meant.frame
            assert found.center == pytest.approx(meant.center, abs=center_step + 1e-9)
            # A size of less than a step is a step.
            assert found.size == pytest.approx(meant.size, abs=2 * size_step + 1e-9)
            if min(meant.size) > 2 * size_step:
                assert found.size == pytest.approx(meant.size, abs=size_step + 1e-9)
            turn = (found.yaw - meant.yaw) % math.pi
            assert min(turn, math.pi - turn) <= HALF_A_DEGREE + 1e-9
        # What was read is written as it was.
        assert write_boxes(read, numbers=numbers) == text

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text(max_size=60) | st.text(alphabet='[]{}":,0123456789-.eframcntsizyw <>bin_', max_size=120))
    def test_any_text_is_boxes_or_a_told_fault(self, text):
        for numbers in STYLES:
            try:
                assert all(isinstance(box, CameraBox) for box in parse_boxes(text, numbers=numbers))
            except ValueError as error:
                assert "nswer" in str(error)


def changed(**fields):
    return json.dumps([{**ROW, **fields}])


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "no strict JSON"),
            ("the chair", "no strict JSON"),
            (f"Here it is: {json.dumps([ROW])}", "no strict JSON"),
            (f"```json\n{json.dumps([ROW])}\n```", "no strict JSON"),
            (json.dumps([ROW])[:-1], "no strict JSON"),
            (json.dumps([ROW]) + "]", "no strict JSON"),
            (json.dumps(ROW), "must be a JSON list"),
            ("null", "must be a JSON list"),
            ("[[]]", "must have exactly"),
            (json.dumps([{k: v for k, v in ROW.items() if k != "yaw"}]), "must have exactly"),
            (changed(label="chair"), "must have exactly"),
            ('[{"frame":0,"frame":1,"center":[0,0,1],"size":[1,1,1],"yaw":0}]', "twice"),
            (changed(frame=-1), "frame must be at least 0"),
            (changed(frame=True), "frame must be a whole number"),
            (changed(frame="2"), "frame must be a whole number"),
            (changed(center=[0, 0]), "center must be three"),
            (changed(center="0 0 1"), "center must be three"),
            (changed(center=[0.5, 0, 1]), "no whole number"),
            (changed(center=[10_001, 0, 1]), "center must be from"),
            (changed(center=[None, 0, 1]), "center must be a whole"),
            (changed(size=[0, 1, 1]), "size must be from 1"),
            (changed(size=[-5, 1, 1]), "size must be from 1"),
            (changed(yaw=181), "yaw must be from"),
            (changed(yaw=math.nan), "no whole number"),
            ("[" * 100_000, "letters"),
            ("[" * 15_000, "answer"),
            (json.dumps([{**ROW, "center": [int("9" * 400), 0, 0]}]), "center must be from"),
            (json.dumps([ROW] * (MAX_BOXES + 1)), "at most 64 boxes"),
        ],
    )
    def test_other_forms_are_told(self, text, words):
        with pytest.raises(ValueError, match=words):
            parse_boxes(text)

    def test_a_frame_that_was_not_shown(self):
        assert parse_boxes(json.dumps([ROW]), num_frames=3)[0].frame == 2
        with pytest.raises(ValueError, match="frame must be from 0 to 1, got 2"):
            parse_boxes(json.dumps([ROW]), num_frames=2)

    @pytest.mark.parametrize(
        "fields",
        [
            {"center": "<bin_1><bin_2>"},
            {"center": "<bin_1><bin_2><bin_512>"},
            {"center": "<bin_1><bin_2><bin_03>"},
            {"center": "<bin_1> <bin_2> <bin_3>"},
            {"center": [1, 2, 3]},
            {"yaw": "<bin_180>"},
            {"yaw": "<bin_1><bin_2>"},
        ],
    )
    def test_tokens(self, fields):
        good = json.loads(write_boxes([CHAIR], numbers="tokens"))[0]
        assert len(parse_boxes(json.dumps([good]), numbers="tokens")) == 1
        with pytest.raises(ValueError, match=next(iter(fields))):
            parse_boxes(json.dumps([{**good, **fields}]), numbers="tokens")

    def test_one_style_is_not_read_as_another(self):
        with pytest.raises(ValueError):
            parse_boxes(write_boxes([CHAIR], numbers="tokens"))
        with pytest.raises(ValueError, match="center must be from 0"):
            parse_boxes(write_boxes([CHAIR]), numbers="bins")

    def test_arguments(self):
        for call in (lambda: parse_boxes("[]", numbers="roman"), lambda: write_boxes([], numbers="roman")):
            with pytest.raises(ValueError, match="`numbers` must be one of"):
                call()
        with pytest.raises(TypeError, match="`text` must be text"):
            parse_boxes(b"[]")
        with pytest.raises(ValueError, match="`num_frames` must be an integer of at least 1"):
            parse_boxes("[]", num_frames=0)
        for wrong in (CHAIR, [ROW], None, "[]"):
            with pytest.raises(TypeError, match="`boxes` must be a list of CameraBox"):
                write_boxes(wrong)
        with pytest.raises(ValueError, match="at most 64"):
            write_boxes([CHAIR] * 65)

    @pytest.mark.parametrize(("numbers", "far"), [("digits", 101.0), ("bins", 10.3), ("tokens", -10.3)])
    def test_measures_that_cannot_be_written(self, numbers, far):
        with pytest.raises(ValueError, match=r"`boxes\[1\]`: the center .* is out of the range"):
            write_boxes([CHAIR, CameraBox(0, (0, far, 1), (1, 1, 1), 0)], numbers=numbers)
