"""Cases of the model itself and of sessions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import damaged
from bad_inputs.training import ODD

FRAMES, GRID = 2, (3, 3)


def batch(*parts: Any, **options: Any) -> dict[str, Any]:
    """A batch of one question for the tiny model."""
    import conftest

    # The special tokens of the processor come first in its vocabulary.
    with mock.patch.object(conftest, "FIRST_TEXT_ID", 20):
        return conftest.build_tiny_inputs(goods.model().config, list(parts or (FRAMES, "text")), **options)


def _tensor(value: Any) -> Any:
    """A tensor where there can be one."""
    import torch

    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return value


SHAPES = {
    "input_ids": (1, 28),
    "attention_mask": (1, 28),
    "pixel_values_videos": (1, 2, 3, 70, 70),
    "video_frame_mask": (1, 2),
    "region_masks": (1, 2, 2, 3, 3),
    "region_valid": (1, 2),
}
# Another batch of ids alone, a text without padding, and an integer type are right.
NUMERIC = ("a NaN", "an Inf", "a negative Inf", "float64 beyond float32", "all NaN")


def _damages(add: Callable[..., None], run: Callable[..., Any], with_regions: bool) -> None:
    for name, shape in SHAPES.items():
        if name.startswith("region") and not with_regions:
            continue
        skip = NUMERIC if name != "pixel_values_videos" else ()
        for what in damaged(np.ones(shape), skip):

            def damage(folder: Path, /, name: str = name, what: str = what) -> Any:
                given = run_inputs(with_regions)
                return run(folder, **{name: _tensor(damaged(np.asarray(given[name]))[what]())})

            words = {
                "input_ids": ("token", "text", "length"),
                "attention_mask": ("mask",),
                "pixel_values_videos": ("pixel", "frame", "video"),
            }
            add(f"{name} {what}", damage, name, *words.get(name, ("region", "frame_mask")), "shape", "batch")


def run_inputs(with_regions: bool) -> dict[str, Any]:
    """Right inputs, with two regions and two places that point at them if asked for."""
    if not with_regions:
        return batch()
    return batch(FRAMES, "text", "ground", "text", "ground", regions=2)


@door("model.forward", "modeling_ide3d.IDE3DForConditionalGeneration", "modeling_ide3d.IDE3DModel")
def forward(add: Callable[..., None]) -> None:
    import torch

    def run(folder: Path, /, **fields: Any) -> Any:
        given = {**run_inputs(any(key.startswith("region") for key in fields)), **fields}
        with torch.no_grad():
            return goods.model()(**{key: value for key, value in given.items() if value is not ...})

    add("right: a video", run, expect="taken")
    add("right: regions", lambda f: run(f, region_valid=torch.ones(1, 2, dtype=torch.bool)), expect="taken")
    add(
        "right: text alone",
        lambda f: run(f, **batch("text"), pixel_values_videos=..., video_frame_mask=...),
        expect="taken",
    )
    add(
        "right: an image",
        lambda f: run(f, **{"pixel_values_videos": ..., "video_frame_mask": ..., **batch("image", "text")}),
        expect="taken",
    )
    add(
        "right: region masks as integers 0 and 1",
        lambda f: run(f, region_masks=torch.ones(1, 2, 2, 3, 3, dtype=torch.long)),
        expect="either",
    )
    _damages(add, run, True)
    ones = torch.ones
    for what, fields in {
        "float64 pixels": lambda: {"pixel_values_videos": batch()["pixel_values_videos"].double()},
        "uint8 pixels": lambda: {"pixel_values_videos": torch.ones(1, 2, 3, 70, 70, dtype=torch.uint8)},
        "int64 pixels": lambda: {"pixel_values_videos": torch.ones(1, 2, 3, 70, 70, dtype=torch.long)},
        "pixels 0..255": lambda: {"pixel_values_videos": torch.full((1, 2, 3, 70, 70), 200.0)},
        "pixels channels last": lambda: {"pixel_values_videos": torch.ones(1, 2, 70, 70, 3)},
        "pixels of another size": lambda: {"pixel_values_videos": torch.ones(1, 2, 3, 42, 42)},
        "pixels of more frames": lambda: {"pixel_values_videos": torch.ones(1, 3, 3, 70, 70), "video_frame_mask": ...},
        "pixels of two videos": lambda: {"pixel_values_videos": torch.ones(2, 2, 3, 70, 70), "video_frame_mask": ...},
        "frame mask float with 0.5": lambda: {"video_frame_mask": torch.full((1, 2), 0.5)},
        "frame mask of ints": lambda: {"video_frame_mask": torch.full((1, 2), 7)},
        "frame mask with a hole": lambda: {"video_frame_mask": torch.tensor([[False, True]])},
        "frame mask all false": lambda: {"video_frame_mask": torch.zeros(1, 2, dtype=torch.bool)},
        "frame mask of other frames": lambda: {"video_frame_mask": torch.ones(1, 5, dtype=torch.bool)},
        "attention mask of other length": lambda: {"attention_mask": ones(1, 5, dtype=torch.long)},
        "attention mask of another batch": lambda: {"attention_mask": ones(3, 28, dtype=torch.long)},
        "attention mask of floats": lambda: {"attention_mask": torch.full((1, 28), 0.3)},
        "attention mask with -1": lambda: {"attention_mask": -ones(1, 28, dtype=torch.long)},
        "region masks float probabilities 0.3 (all become true)": lambda: {"region_masks": torch.full((1, 2, 2, 3, 3), 0.3)},
        "region masks of other frames": lambda: {"region_masks": torch.ones(1, 2, 5, 3, 3, dtype=torch.bool)},
        "region masks of another grid": lambda: {"region_masks": torch.ones(1, 2, 2, 5, 5, dtype=torch.bool)},
        "region masks too few": lambda: {"region_masks": torch.ones(1, 1, 2, 3, 3, dtype=torch.bool), "region_valid": ...},
        "region_references negative -5": lambda: {"region_references": torch.tensor([[-5, 0]])},
        "region_references too large": lambda: {"region_references": torch.tensor([[9, 0]])},
        "region_references of floats": lambda: {"region_references": torch.tensor([[0.5, 1.0]])},
        "region_references too many": lambda: {"region_references": torch.tensor([[0, 1, 0, 1, 0]])},
        "region_references too few": lambda: {"region_references": torch.tensor([[0]])},
        "region_references of another batch": lambda: {"region_references": torch.tensor([[0, 1]] * 3)},
        "region_valid of floats": lambda: {"region_valid": torch.full((1, 2), 0.3)},
        "misspelt depth given to the export": lambda: {"depht": torch.ones(1, 2, 70, 70)},
        "depth given to the export": lambda: {"depth": torch.ones(1, 2, 70, 70)},
        "misspelt pixel_values_video": lambda: {"pixel_values_video": torch.ones(1)},
        "logits_to_keep -1": lambda: {"logits_to_keep": -1},
        "logits_to_keep more than there are": lambda: {"logits_to_keep": 999},
        "logits_to_keep 1.5": lambda: {"logits_to_keep": 1.5},
        "logits_to_keep a string": lambda: {"logits_to_keep": "x"},
        "labels of another length": lambda: {"labels": torch.ones(1, 5, dtype=torch.long)},
        "labels outside the vocabulary": lambda: {"labels": torch.full((1, 28), 10**6)},
        "labels negative -5": lambda: {"labels": torch.full((1, 28), -5)},
        "labels of floats": lambda: {"labels": torch.full((1, 28), 0.5)},
        "labels a string": lambda: {"labels": "x"},
        "input_ids outside the vocabulary": lambda: {"input_ids": torch.full((1, 28), 10**6)},
        "input_ids negative": lambda: {"input_ids": torch.full((1, 28), -3)},
        "input_ids of floats": lambda: {"input_ids": torch.full((1, 28), 0.5)},
        "input_ids None": lambda: {"input_ids": None},
        "input_ids and embeddings": lambda: {"inputs_embeds": torch.ones(1, 28, 48)},
        "embeddings of another width": lambda: {"input_ids": None, "inputs_embeds": torch.ones(1, 28, 5), "pixel_values_videos": ..., "video_frame_mask": ...},
        "no video where the text has one": lambda: {"pixel_values_videos": ..., "video_frame_mask": ...},
        "a video where the text has none": lambda: {"input_ids": torch.full((1, 28), 5)},
        "pixel_values for the video's place": lambda: {"pixel_values": torch.ones(2, 3, 70, 70)},
        "position_ids of another length": lambda: {"position_ids": torch.ones(1, 5, dtype=torch.long)},
        "position_ids negative": lambda: {"position_ids": -ones(1, 28, dtype=torch.long)},
        "cache a string": lambda: {"cache": "x"},
        "mm_encoder_outputs a string": lambda: {"mm_encoder_outputs": "x"},
        "mm_encoder_outputs of another kind": lambda: {"mm_encoder_outputs": {"smell": 1}, "pixel_values_videos": ..., "video_frame_mask": ...},
        "both pixels and encoder outputs": lambda: {"mm_encoder_outputs": {"video": object()}},
        "use_cache a string": lambda: {"use_cache": "no"},
    }.items():  # fmt: skip
        # Transformers keeps all of the logits where there are fewer; nothing tells bright pixels from normalised ones.
        # The last <ground> may be a query, which refers to no region.
        odd = ("use_cache a string", "frame mask of ints", "pixels 0..255", "logits_to_keep more than there are",
               "region masks too few", "region_references too few")  # fmt: skip
        expect = "either" if what in odd else "refused"
        words = what.split()[0].lower()
        add(what, lambda f, fields=fields: run(f, **fields()), words, "pixel", "frame", "mask", "region", "reference", "depht", "depth", "video", "label",
            "logits_to_keep", "token", "length", "inputs_embeds", "position", "float64", expect=expect)  # fmt: skip
    _odd_inputs(add, run)


def _odd_inputs(add: Callable[..., None], run: Callable[..., Any]) -> None:
    """Add other types, and other kinds of tensors, at every argument of the forward pass."""
    import torch

    kinds: dict[str, Any] = {**ODD, "None in a list": [None], "True": True, "a text": "x", "a number": 5, "a float": 0.5, "a scalar": torch.tensor(1), "a sparse tensor": torch.eye(28).to_sparse(),
                             "complex": torch.ones(1, 28, dtype=torch.complex64), "four axes": torch.ones(1, 1, 1, 1), "five axes": torch.ones(1, 1, 1, 1, 1), "an empty tensor": torch.ones(0), "on another device": torch.ones(1, 28, device="meta")}  # fmt: skip
    for name in ("input_ids", "attention_mask", "pixel_values_videos", "pixel_values", "video_frame_mask", "region_masks", "region_valid", "region_references", "labels", "position_ids",
                 "cache", "inputs_embeds", "mm_encoder_outputs", "logits_to_keep"):  # fmt: skip
        for what, value in kinds.items():
            fields = {"input_ids": None} if name == "inputs_embeds" else {}
            expect = "either" if (name, what) in (("attention_mask", "four axes"), ("logits_to_keep", "a number"), ("logits_to_keep", "an empty tensor")) else "refused"  # fmt: skip
            add(f"{name}: {what}", lambda f, n=name, v=value, o=fields: run(f, **o, **{n: v}), name, name[:-1], "pixel", "frames", "meta", "cache", "region", expect=expect)  # fmt: skip
    for what, labels in {"of another batch": torch.ones(3, 28, dtype=torch.long), "of int32": torch.ones(1, 28, dtype=torch.int32), "of bools": torch.ones(1, 28, dtype=torch.bool), "-101": torch.full((1, 28), -101)}.items():  # fmt: skip
        add(f"labels {what}, odd", lambda f, v=labels: run(f, labels=v), "labels")
    add("labels of a part of the logits", lambda f: run(f, labels=torch.ones(1, 28, dtype=torch.long), logits_to_keep=3), "labels")  # fmt: skip
    add("right: labels", lambda f: run(f, labels=torch.tensor([[-100] * 20 + [5] * 8])), expect="taken")
    add("right: positions", lambda f: run(f, position_ids=torch.arange(28)[None]), expect="taken")
    add("right: logits_to_keep of NumPy", lambda f: run(f, logits_to_keep=np.int64(2)), expect="taken")
    add("right: indices to keep", lambda f: run(f, logits_to_keep=torch.tensor([1, 2])), expect="taken")
    add("right: a boolean mask", lambda f: run(f, attention_mask=torch.ones(1, 28, dtype=torch.bool)), expect="taken")
    add("right: no attention mask", lambda f: run(f, attention_mask=None), expect="taken")


@door("generate", "modeling_ide3d.IDE3DForConditionalGeneration")
def generate(add: Callable[..., None]) -> None:
    import torch

    def run(folder: Path, /, **fields: Any) -> Any:
        given = {**batch(), "max_new_tokens": 2, "do_sample": False, **fields}
        return goods.model().generate(**{key: value for key, value in given.items() if value is not ...})

    def padded(folder: Path, /, side: str) -> Any:
        from conftest import build_tiny_inputs

        inputs = build_tiny_inputs(goods.model().config, [2, "text"], [2, "text", "text", "text"], padding_side=side)
        return goods.model().generate(**inputs, max_new_tokens=2)

    add("right: a video", run, expect="taken")
    add("right: left-padded batch", lambda f: padded(f, "left"), expect="taken")
    add("right-padded batch (template's default side)", lambda f: padded(f, "right"), "padding", "right", "left")
    reason = "arguments of generate are Transformers' own"
    for name, values in {
        "max_new_tokens": {"0": 0, "-1": -1, "a string": "x", "1.5": 1.5, "NaN": np.nan, "a list": [1]},
        "num_beams": {"0": 0, "-1": -1, "a string": "x", "1.5": 1.5},
        "temperature": {"0": 0.0, "-1": -1.0, "a string": "x", "NaN": np.nan},
        "top_p": {"2": 2.0, "-1": -1.0, "a string": "x"}, "top_k": {"-1": -1, "a string": "x", "1.5": 1.5},
        "num_return_sequences": {"0": 0, "more than beams": 3, "a string": "x"},
        "eos_token_id": {"a string": "x", "outside the vocabulary": 10**6, "-1": -1},
        "unknown_option": {"x": 1}, "video": {"a path": "x.mp4"}, "max_length": {"shorter than the text": 3, "a string": "x"},
        "repetition_penalty": {"0": 0.0, "-1": -1.0, "a string": "x"}, "stop_strings": {"without a tokenizer": ["x"]},
        "cache_implementation": {"unknown": "nonsense"}, "assistant_model": {"a string": "x"}, "streamer": {"a string": "x"},
    }.items():  # fmt: skip
        for what, value in values.items():
            options = {"do_sample": True} if name in ("temperature", "top_p", "top_k") else {}
            options |= {"max_new_tokens": ...} if name == "max_length" else {}  # which would win
            expect = (
                "either"
                if (name, what)
                in (("eos_token_id", "outside the vocabulary"), ("eos_token_id", "-1"), ("max_new_tokens", "1.5"))
                else "refused"
            )
            add(
                f"{name} {what}",
                lambda f, n=name, v=value, o=options: run(f, **{**o, n: v}),
                name,
                "tokenizer",
                "max_new_tokens",
                "length",
                "attribute",
                expect=expect,
                reason=reason,
            )
    for what, fields in {
        "NaN pixels": lambda: {"pixel_values_videos": torch.full((1, 2, 3, 70, 70), torch.nan)},
        "Inf pixels": lambda: {"pixel_values_videos": torch.full((1, 2, 3, 70, 70), torch.inf)},
        "no video where the text has one": lambda: {"pixel_values_videos": ..., "video_frame_mask": ...},
        "frame mask float with 0.5": lambda: {"video_frame_mask": torch.full((1, 2), 0.5)},
        "region masks float 0.3": lambda: {"region_masks": torch.full((1, 2, 2, 3, 3), 0.3)},
        "region masks without a place": lambda: {"region_masks": torch.ones(1, 2, 2, 3, 3, dtype=torch.bool)},
        "region_references negative -5": lambda: {"region_masks": torch.ones(1, 2, 2, 3, 3, dtype=torch.bool), "region_references": torch.tensor([[-5]])},
        "attention mask of other length": lambda: {"attention_mask": torch.ones(1, 5, dtype=torch.long)},
        "attention mask all 0": lambda: {"attention_mask": torch.zeros(1, 28, dtype=torch.long)},
        "no text": lambda: {"input_ids": torch.ones(1, 0, dtype=torch.long)},
        "depth given": lambda: {"depth": torch.ones(1, 2, 70, 70)},
        "misspelt region_mask": lambda: {"region_mask": torch.ones(1)},
    }.items():  # fmt: skip
        expect = "either" if what == "attention mask all 0" else "refused"
        add(
            what,
            lambda f, fields=fields: run(f, **fields()),
            "pixel",
            "frame",
            "region",
            "mask",
            "video",
            "input_ids",
            "depth",
            "text",
            "token",
            expect=expect,
        )
    for name in ("max_new_tokens", "max_length", "num_beams", "num_return_sequences", "temperature", "top_p", "top_k", "repetition_penalty", "eos_token_id", "pad_token_id",
                 "length_penalty", "no_repeat_ngram_size", "min_new_tokens", "attention_mask", "input_ids", "cache"):  # fmt: skip
        for what, value in {**ODD, "True": True, "beyond float64": 10**400 if name != "max_length" else -5}.items():
            expect = "either" if (name, what) in (("max_new_tokens", "beyond float64"),) else "refused"
            if (name, what) in (("attention_mask", "beyond float64"), ("input_ids", "beyond float64"), ("cache", "beyond float64")):  # fmt: skip
                continue
            add(f"{name}: {what}", lambda f, n=name, v=value: run(f, **{"do_sample": n in ("temperature", "top_p", "top_k"), n: v}), name, expect=expect, reason=reason)  # fmt: skip
    add("right: temperature 0 without sampling", lambda f: run(f, temperature=0.0), expect="taken")
    add("right: numbers of NumPy", lambda f: run(f, max_new_tokens=np.int64(2), num_beams=np.int64(1)), expect="taken")
    add("right: tokens that end", lambda f: run(f, eos_token_id=[3, 4], pad_token_id=3), expect="taken")
    add("right: tokens that end, of NumPy", lambda f: run(f, eos_token_id=np.array([3, 4])), expect="taken")
    add("right: a range of suppressed tokens", lambda f: run(f, suppress_tokens=range(3, 5)), expect="taken")
    add("right: max_new_tokens beside a short max_length", lambda f: run(f, max_length=3, max_new_tokens=2), expect="taken")  # fmt: skip


@door("ground", "modeling_ide3d.IDE3DForConditionalGeneration")
def ground(add: Callable[..., None]) -> None:
    import torch

    def inputs() -> dict[str, Any]:
        return batch(FRAMES, "text", "ground", regions=2)

    def run(folder: Path, /, **fields: Any) -> Any:
        given = {**inputs(), **fields}
        return goods.model().ground(**{key: value for key, value in given.items() if value is not ...})

    add("right: two regions", run, expect="taken")
    for name, skip in {
        "region_masks": NUMERIC,
        "region_valid": NUMERIC,
        "pixel_values_videos": (),
        "input_ids": NUMERIC,
    }.items():
        shape = {"input_ids": (1, 29)}.get(name, SHAPES[name])
        for what in damaged(np.ones(shape), skip):

            def damage(folder: Path, /, name: str = name, what: str = what) -> Any:
                return run(folder, **{name: _tensor(damaged(np.asarray(inputs()[name]))[what]())})

            # A second place, behind the first, points at a region.
            expect = "either" if (name, what) == ("input_ids", "last axis one more") else "refused"
            words = ("region", "pixel", "frame", "token", "text", "shape", "batch")
            add(f"{name} {what}", damage, name, *words, expect=expect)
    bools = {"dtype": torch.bool}
    encoded = lambda: {"video": goods.model().get_video_features(inputs()["pixel_values_videos"], return_dict=True)}  # noqa: E731
    for what, fields in {
        "masks float 0.3": lambda: {"region_masks": torch.full((1, 2, 2, 3, 3), 0.3)},
        "masks of integers 0 to 9": lambda: {"region_masks": torch.full((1, 2, 2, 3, 3), 9)},
        "masks of another grid": lambda: {"region_masks": torch.ones(1, 2, 2, 5, 5, **bools)},
        "masks of other frames": lambda: {"region_masks": torch.ones(1, 2, 7, 3, 3, **bools)},
        "no region": lambda: {"region_masks": torch.ones(1, 0, 2, 3, 3, **bools), "region_valid": ...},
        "NaN pixels": lambda: {"pixel_values_videos": torch.full((1, 2, 3, 70, 70), torch.nan)},
        "Inf pixels": lambda: {"pixel_values_videos": torch.full((1, 2, 3, 70, 70), torch.inf)},
        "both pixels and encoder outputs": lambda: {"mm_encoder_outputs": encoded()},
        "no ground token": lambda: {"input_ids": torch.where(inputs()["input_ids"] == goods.model().config.ground_token_id, 6, inputs()["input_ids"])},
        "no video": lambda: {"pixel_values_videos": ..., "video_frame_mask": ...},
        "valid of floats": lambda: {"region_valid": torch.full((1, 2), 0.3)},
        "valid of another number": lambda: {"region_valid": torch.ones(1, 5, **bools)},
        "references negative -5": lambda: {"region_references": torch.tensor([[-5]])},
        "references too large": lambda: {"region_references": torch.tensor([[9]])},
        "encoder outputs a string": lambda: {"mm_encoder_outputs": "x", "pixel_values_videos": ..., "video_frame_mask": ...},
        "a misspelt argument": lambda: {"region_vald": 1},
        "input_ids a list": lambda: {"input_ids": [[1, 2, 3]]},
        "region_masks None": lambda: {"region_masks": None},
    }.items():  # fmt: skip
        expect = "either" if what == "no region" else "refused"
        add(
            what,
            lambda f, fields=fields: run(f, **fields()),
            "region",
            "mask",
            "pixel",
            "finite",
            "nan",
            "encoder",
            "ground",
            "video",
            "valid",
            "reference",
            "input_ids",
            expect=expect,
        )

    def nan_model(folder: Path) -> Any:
        model = goods.fresh_model()
        next(model.grounding_head.parameters()).data.fill_(torch.nan)
        return model.ground(**inputs())

    add("a head of NaN weights", nan_model, "finite", "nan")
