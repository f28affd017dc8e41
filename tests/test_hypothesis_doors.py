"""Any array and any argument at the main doors: it is taken, or refused by a clear error; never another exception."""

import warnings
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from bad_inputs import goods
from bad_inputs.cases import Case, judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
DTYPES = st.sampled_from(
    [np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64, np.bool_, np.complex64, "U3", "M8[s]"]
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.just({}),
    st.just([]),
)
ANYTHING = st.one_of(
    ARRAYS, SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
)


def taken_or_clear(run: Any, *words: str) -> None:
    """Fail unless the call works or raises what names one of the words."""
    error = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run()
        except Exception as raised:  # noqa: BLE001 - whatever comes is judged
            error = raised
    outcome = judge(Case("hypothesis", "any", lambda folder: None, "either", words), error, [])
    assert outcome.is_good, f"{outcome.kind}: {outcome.error} {outcome.message}"


@pytest.mark.parametrize(
    "name", ["frames", "depth", "intrinsics", "camera_to_world", "boxes", "labels", "frame_names", "scene_id"]
)
def test_posed_video(name):
    from processing import PosedVideo

    words = {
        "frames": "frame",
        "camera_to_world": "pose",
        "boxes": "box",
        "labels": "label",
        "frame_names": "frame_name",
    }

    @EXAMPLES
    @given(ANYTHING)
    def check(value):
        taken_or_clear(
            lambda: PosedVideo(**goods.posed(**{name: value})), name, words.get(name, name), "camera", "label"
        )

    check()


@EXAMPLES
@given(ANYTHING)
def test_select_frames(value):
    from processing import PosedVideo

    taken_or_clear(lambda: PosedVideo(goods.pixels()).select_frames(value), "indices")


@pytest.mark.parametrize("name", ["image_size", "patch_size", "pool_stride"])
def test_token_grid(name):
    from processing import TokenGrid

    @EXAMPLES
    @given(SCALARS)
    def check(value):
        taken_or_clear(
            lambda: TokenGrid(**{"image_size": 70, "patch_size": 14, "pool_stride": 2, name: value}), name, "patch"
        )

    check()


@EXAMPLES
@given(ANYTHING)
def test_regions_from_masks(value):
    from processing.regions import regions_from_masks

    taken_or_clear(lambda: regions_from_masks(value, goods.processor_grid()), "mask", "frames", "pixel")


@EXAMPLES
@given(ANYTHING)
def test_videos_of_the_processor(value):
    words = ("video", "frame", "pixel", "picture", "image", "path", "file")
    taken_or_clear(lambda: goods.processor()(text="<video>x", videos=value, return_tensors="pt"), *words)


@EXAMPLES
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "x"]),
            st.one_of(SCALARS, st.sampled_from(["user", "assistant"])),
            max_size=3,
        ),
        max_size=3,
    )
)
def test_chats_of_the_processor(messages):
    words = ("chat", "message", "role", "content", "text", "video")
    taken_or_clear(lambda: goods.processor().apply_chat_template(messages, tokenize=True, return_dict=True), *words)


@pytest.mark.parametrize(
    "name",
    [
        "frames",
        "depth",
        "intrinsics",
        "camera_to_world",
        "teacher_features",
        "region_masks",
        "region_targets",
        "frame_names",
        "messages",
    ],
)
def test_training_samples(name):
    from training_samples import build_collator, make_sample

    collator = build_collator()
    right = make_sample(2, scene_id="room7")

    @EXAMPLES
    @given(ANYTHING)
    def check(value):
        taken_or_clear(lambda: collator([{**right, name: value}]), "room7", name)

    check()


@pytest.mark.parametrize("name", ["region_masks", "region_valid", "pixel_values_videos", "input_ids"])
def test_ground(name):
    import torch
    from bad_inputs.running import batch

    model, right = goods.model(), batch(2, "text", "ground", regions=2)

    @EXAMPLES
    @given(ARRAYS.filter(lambda array: array.dtype.kind not in "UM"))
    def check(array):
        words = ("region", "mask", "pixel", "frame", "token", "input_ids", "ground", "video", "valid")
        taken_or_clear(lambda: model.ground(**{**right, name: torch.as_tensor(array)}), *words)

    check()


@EXAMPLES
@given(st.binary(max_size=200), st.sampled_from(["regions.json", "regions.npy", "regions.npz"]))
def test_files_of_regions(tmp_path_factory, data, name):
    from processing.region_files import read_regions

    path = Path(tmp_path_factory.mktemp("any")) / name
    path.write_bytes(data)
    taken_or_clear(lambda: read_regions(path, goods.processor_grid(), [0, 1], 2), name)
