"""Where the channels stand, which numbers pixels hold, and on which scale: one rule for videos and images."""

import numpy as np
import pytest
import torch
from transformers.image_utils import ChannelDimension

from processing.image_reading_ide3d import frames_to_tensor
from processing.pixel_rules_ide3d import infer_layout


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((24, 32, 3), "channels_last"),
        ((3, 24, 32), "channels_first"),
        ((1, 32, 3), "channels_last"),  # one row, four rows
        ((4, 32, 3), "channels_last"),
        ((3, 32, 4), "channels_first"),
        ((24, 32, 1), "channels_last"),
        ((4, 24, 32), "channels_first"),
    ],
)
def test_three_channels_tell_where_they_stand(shape, expected):
    assert infer_layout(shape, "it") == ChannelDimension(expected)
    rows, columns = shape[:2] if expected == "channels_last" else shape[1:]
    assert frames_to_tensor(np.zeros((2, *shape), np.uint8), "it").shape[2:] == (rows, columns)


@pytest.mark.parametrize("shape", [(3, 24, 3), (4, 24, 4), (1, 24, 1), (1, 24, 4)])
def test_frames_that_do_not_tell_are_asked_for(processor, shape):
    """Three rows are three rows, or nothing: never three channels in silence."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    for call in (
        lambda **options: processor.video_processor(pixels, **options),
        lambda **options: processor.video_processor(list(pixels), **options),
        lambda **options: processor(text="<image>", images=pixels[0], **options),
    ):
        with pytest.raises(ValueError, match=rf"Frames of shape \({shape[0]}, 24, .* input_data_format="):
            call()
        call(input_data_format="channels_last")
    assert frames_to_tensor(pixels, "it", "channels_last").shape[2:] == (shape[0], 24)


SCALES = {
    "scaled, divided again": ((0, 1), {}, "lie in 0 to 1, but dividing by 255 is on"),
    "depth in millimetres": ((0, 5000), {}, "between 0 and 255, got 0 to .* Is it depth"),
    "normalised, divided": ((-1, 1), {}, "in 0 to 1|between 0 and 255"),
    "depth, not divided": ((0, 5000), {"do_rescale": False}, "between 0 and 1, got 0 to .* Is it depth"),
    "bytes, not divided": ((0, 255), {"do_rescale": False}, "between 0 and 1, got 0 to"),
    "depth, left alone": (
        (0, 5000),
        {"do_rescale": False, "do_normalize": False},
        "Without dividing by 255.* got 0 to",
    ),
}
RIGHT_SCALES = {
    "bytes": ((0, 255), {}),
    "scaled": ((0, 1), {"do_rescale": False}),
    "normalised": ((-3, 3), {"do_rescale": False, "do_normalize": False}),
    "bytes, left alone": ((0, 255), {"do_rescale": False, "do_normalize": False}),
    "black": ((0, 0), {}),
}


def doors(processor, low, high):
    pixels = np.linspace(low, high, 2 * 8 * 9 * 3, dtype=np.float32).reshape(2, 8, 9, 3)
    return (
        lambda **options: processor.video_processor(pixels, **options),
        lambda **options: processor(text="<video>", videos=torch.from_numpy(pixels), **options),
        lambda **options: processor(text=["<image>"] * 2, images=list(pixels), **options),
    )


@pytest.mark.parametrize(("span", "options", "message"), SCALES.values(), ids=SCALES)
def test_pixels_of_another_scale_are_refused(processor, span, options, message):
    for call in doors(processor, *span):
        with pytest.raises(ValueError, match=message):
            call(**options)


@pytest.mark.parametrize(("span", "options"), RIGHT_SCALES.values(), ids=RIGHT_SCALES)
def test_pixels_of_the_right_scale_are_taken(processor, span, options):
    for call in doors(processor, *span):
        call(**options)


def test_numbers_beyond_float32_are_infinite(processor):
    pixels = np.full((2, 8, 9, 3), 1e300)
    for options in ({}, {"do_rescale": False, "do_normalize": False}):
        with pytest.raises(ValueError, match=r"NaN or infinite pixels in frame\(s\) \[0, 1\]"):
            processor.video_processor(pixels, **options)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (np.full((2, 8, 9, 3), "a"), TypeError, "arrays of numbers, got <U1"),
        (np.full((2, 8, 9, 3), None), TypeError, "arrays of numbers, got object"),
        ([np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9, 3), np.float32)], ValueError, "one type, got integers and"),
        (np.zeros((2, 8, 9, 3), bool), TypeError, "got torch.bool"),
    ],
)
def test_frames_are_numbers_of_one_type(processor, frames, error, message):
    with pytest.raises(error, match=message):
        processor.video_processor(frames)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rescale_factor", float("nan")),
        ("rescale_factor", float("inf")),
        ("rescale_factor", 0.0),
        ("image_mean", [float("nan")] * 3),
        ("image_mean", [0.5, 0.5]),
        ("image_std", [0.0] * 3),
        ("image_std", [-0.5] * 3),
    ],
)
def test_numbers_that_make_no_pixels_are_refused(processor, frames, name, value):
    for call in (
        lambda: processor.video_processor(frames(2), **{name: value}),
        lambda: processor(text="<image>", images=frames(1)[0], **{name: value}),
    ):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            call()


def test_settings_and_arguments_that_the_video_processor_lacks(processor, frames, caplog):
    with pytest.raises(TypeError, match=r"no arguments \['num_framess'\]"):
        processor.video_processor(frames(2), num_framess=2)
    type(processor.video_processor)(**{"num_framess": 2, "processor_class": "IDE3DProcessor"})
    assert [record.getMessage() for record in caplog.records] == [
        "IDE3DVideoProcessor does not know the settings ['num_framess']; they have no effect."
    ]
