"""Cases of sessions about a scene."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import NUMBERS, TEXTS


@door("SceneSession", "trainer.session.SceneSession", "trainer.session.VideoScene", "trainer.session.answer_from_regions",
      "trainer.session.pool_sample_regions", "trainer.session.MemoryPlan", "trainer.session.stream_answer")  # fmt: skip
def sessions(add: Callable[..., None]) -> None:
    import torch

    from trainer.session import stream_answer

    cached: dict[str, Any] = {}

    def session() -> Any:
        from trainer.session import SceneSession

        if "right" not in cached:
            cached["right"] = SceneSession(goods.model(), goods.processor(), goods.pixels(), do_sample_frames=False)
        return cached["right"]

    def make(folder: Path, /, **fields: Any) -> Any:
        from trainer.session import SceneSession

        given = {"model": goods.model(), "processor": goods.processor(), "video": goods.pixels(), **fields}
        return SceneSession(given.pop("model"), given.pop("processor"), given.pop("video"), **given)

    def masks(count: int = 2) -> Any:
        return torch.ones(count, 3, 3, 3, dtype=torch.bool)

    point = "What is <ground>?"
    add("right: ask", lambda f: session().ask(["Where?"], max_new_tokens=2), expect="taken")
    add("right: ground", lambda f: session().ground(["the lamp"], masks()), expect="taken")
    add("right: describe", lambda f: session().describe(masks(), max_new_tokens=2), expect="taken")
    for what, value in {
        "empty": [""], "an int": [5], "None": [None], "a text, not a list": "text", "bytes": [b"x"], "a list": [["x"]],
        "a mapping": [{"a": 1}], "an int alone": 5, "None alone": None, "with a video in it": ["<video> x"], "spaces": ["   "],
        "of 200,000 words": ["word " * 200_000], "an image in it": ["<image>"], "a chat without a video": [[{"role": "user", "content": "x"}]],
        "a function": [len],
    }.items():  # fmt: skip
        title = f"question {what}"
        add(title, lambda f, v=value: session().ask(v, max_new_tokens=2), "question", "text", "memory", "video")
        add(
            f"stream: {title}",
            lambda f, v=value: list(stream_answer(session(), v, max_new_tokens=2)),
            "question",
            "text",
            "memory",
            "video",
            "chat",
            expect="either" if what == "a text, not a list" else "refused",
        )
        add(
            f"ground: description {what}",
            lambda f, v=value: session().ground(v, masks()),
            "description",
            "question",
            "text",
            "memory",
            "video",
        )
    for what, options in {
        "max_new_tokens": {k: v for k, v in NUMBERS.items() if k != "huge"}, "batch_size": {k: v for k, v in NUMBERS.items() if k not in ("None", "huge")},
    }.items():  # fmt: skip
        for name, value in options.items():
            add(
                f"{what} {name}",
                lambda f, w=what, v=value: session().ask(["Where?"], **{"max_new_tokens": 2, w: v}),
                what,
            )
    for what, change in {
        "float": lambda m: m.float() * 0.3, "floats of 0 and 1": lambda m: m.float(), "of another grid": lambda m: torch.ones(2, 3, 5, 5, dtype=torch.bool),
        "of other frames": lambda m: torch.ones(2, 9, 3, 3, dtype=torch.bool), "of rank 3": lambda m: m[0], "of rank 5": lambda m: m[None],
        "None": lambda m: None, "a string": lambda m: "x", "a number": lambda m: 5, "NaN": lambda m: m * torch.nan, "none": lambda m: m[:0],
        "of integers": lambda m: m.long() * 7, "lists": lambda m: m.tolist(),
    }.items():  # fmt: skip
        expect = "either" if what in ("none", "lists", "floats of 0 and 1") else "refused"
        title = "describe: regions float" if what == "float" else f"describe: regions {what}"
        add(
            title,
            lambda f, c=change: session().describe(c(masks()), max_new_tokens=2),
            "region",
            "mask",
            expect=expect,
        )
        add(
            f"ground: regions {what}",
            lambda f, c=change: session().ground(["x"], c(masks())),
            "region",
            "mask",
            expect=expect,
        )
        if what != "None":
            add(
                f"ask: regions {what}",
                lambda f, c=change: session().ask([point], [c(masks(1))], max_new_tokens=2),
                "region",
                "mask",
                "ground",
                expect=expect,
            )
    for what, template in {
        "without a place": "Find it.", "without a video": "{description}", "None": None, "an int": 5, "empty": "", "with a place alone": "{description}{description}",
        "with a ground": "<ground> {description}",
    }.items():  # fmt: skip
        expect = "either" if what in ("without a video", "with a place alone") else "refused"
        add(
            f"ground: template {what}",
            lambda f, t=template: session().ground(["x"], masks(), template=t),
            "template",
            "ground",
            "description",
            expect=expect,
        )
    for name, values in {
        "descriptions": {**{k: v for k, v in TEXTS.items() if k != "a list"}, "a text, not a list": "the lamp", "empty": [""], "a number": [5], "a chat": [[{"role": "user", "content": "x"}]]},
        "numbers": {**TEXTS, "unknown": "roman", "that the tokenizer lacks": "tokens"}, "template": {**TEXTS, "without a place": "Where?"},
        "max_boxes": {"0": 0, "65": 65, "a string": "x", "None": None, "1.5": 1.5}, "batch_size": {"0": 0, "a string": "x"},
    }.items():  # fmt: skip
        for what, value in values.items():
            add(f"boxes: {name} {what}", lambda f, n=name, v=value: session().boxes(**{"descriptions": ["the lamp"], "max_boxes": 1, n: v}), name)  # fmt: skip
    add("right: boxes", lambda f: session().boxes(["the lamp"], max_boxes=1), expect="taken")
    add(
        "describe: question without a place",
        lambda f: session().describe(masks(), question="What?", max_new_tokens=2),
        "ground",
    )
    add(
        "ask: fewer regions than places",
        lambda f: session().ask([point + point], [masks(1)], max_new_tokens=2),
        "ground",
        "region",
    )
    add(
        "ask: more regions than places",
        lambda f: session().ask([point], [masks(3)], max_new_tokens=2),
        "ground",
        "region",
    )
    add("ask: a place without regions", lambda f: session().ask([point], max_new_tokens=2), "ground", "region")
    add("ask: regions of another number", lambda f: session().ask(["x"], [None, None], max_new_tokens=2), "regions")
    for name, values in {
        "model": TEXTS, "processor": TEXTS, "system": {k: v for k, v in TEXTS.items() if k != "None"},
        "max_memory": {k: v for k, v in NUMBERS.items() if k not in ("huge", "1.5", "Inf")},
        "video": {"None": None, "an int": 5, "missing": "missing-file.mp4", "a list of numbers": [1], "an empty list": [], "an empty array": np.zeros((0, 9, 9, 3), np.uint8),
                  "NaN": np.full((2, 9, 9, 3), np.nan), "two videos": [goods.pixels(), goods.pixels()], "floats to 5000": np.full((2, 9, 9, 3), 5000.0)},
        "num_frames": {"0": 0, "99": 99, "a string": "x"}, "unknown_option": {"x": 1},
        "vision_dtype": {"a name": "bfloat16", "64 bits": torch.float64, "whole numbers": torch.int8, "a bool": True},
    }.items():  # fmt: skip
        for what, value in values.items():
            add(
                f"session: {name} {what}",
                lambda f, n=name, v=value: make(f, **{n: v}),
                name,
                "memory",
                "video",
                "frame",
                "missing-file",
                "pixel",
                "float",
            )
    for name, values in {
        "regions": {"a number": 5, "a string": "x", "a mapping": {}, "masks, not a list": masks(1)[0], "a list of numbers": [5]},
        "names": {"a number": 5, "a string": "x", "two": ["a", "b"], "a list of numbers": [5]},
    }.items():  # fmt: skip
        for what, value in values.items():
            call = partial(lambda f, n, v: session().ask([point], **{"regions": [masks(1)], n: v}), n=name, v=value)
            add(f"ask: all {name} {what}", call, name, "region")

    def from_regions(folder: Path, /, call: str = "answer_from_regions", **fields: Any) -> Any:
        import trainer.session

        sample = {"frames": goods.pixels(), "region_masks": masks(), "region_references": [0], "questions": [{"question": point}]}  # fmt: skip
        change = fields.pop("change", {})
        samples = [{key: value for key, value in {**sample, **change}.items() if value is not ...}]
        given = {"model": goods.model(), "processor": goods.processor(), "samples": samples, **fields}
        run = getattr(trainer.session, call)
        return run(given.pop("model"), given.pop("processor"), given.pop("samples"), **given)

    for call in ("answer_from_regions", "pool_sample_regions"):
        add(f"right: {call}", partial(from_regions, call=call), expect="taken")
        for name in ("model", "processor", "samples"):
            for what, value in TEXTS.items():
                add(f"{call}: {name} {what}", partial(from_regions, call=call, **{name: value}), name)
        for what, value in {"0": 0, "a string": "x", "1.5": 1.5}.items():
            add(
                f"{call}: rooms_at_once {what}", partial(from_regions, call=call, rooms_at_once=value), "rooms_at_once"
            )
        for key in ("frames", "region_masks"):
            add(f"{call}: without {key}", partial(from_regions, call=call, change={key: ...}), key)
    for what, value in {"none": [], "beyond": [7], "negative": [-1]}.items():
        add(f"references {what}", partial(from_regions, change={"region_references": value}), "region_references")

    def plan(folder: Path, /, **fields: Any) -> Any:
        from trainer.session import MemoryPlan

        given = {"model": goods.model(), "max_memory": 10**9, "prefix_length": 9, "num_frames": 3, **fields}
        return MemoryPlan(*given.values())

    add("right: a plan", plan, expect="taken")
    for name, values in {"model": TEXTS, "max_memory": {"None": None, "a string": "x", "0": 0}, "prefix_length": {"0": 0, "a string": "x"},
                         "num_frames": {"0": 0, "None": None}}.items():  # fmt: skip
        for what, value in values.items():
            add(f"plan: {name} {what}", partial(plan, **{name: value}), name)
    add("session: a model in training", lambda f: make(f, model=goods.fresh_model().train()), "training")

    def nan_session(folder: Path, /, head: bool, run: Callable[[Any], Any]) -> Any:
        model = goods.fresh_model()
        part = model.grounding_head if head else model.lm_head
        next(part.parameters()).data.fill_(torch.nan)
        return run(make(folder, model=model))

    add(
        "ground: a head of NaN weights",
        partial(nan_session, head=True, run=lambda s: s.ground(["x"], masks())),
        "finite",
        "nan",
    )
    add(
        "ask: logits of NaN",
        partial(nan_session, head=False, run=lambda s: s.ask(["x"], max_new_tokens=2)),
        "finite",
        "nan",
    )
