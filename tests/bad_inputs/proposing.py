"""Cases of proposals of regions, of marks, and of finding in pictures alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import NUMBERS, TEXTS

SIZE = (24, 32)


def _mark(**fields: Any) -> Any:
    from processing.proposals import Mark

    return Mark(**{"frame": 0, "frame_size": SIZE, **fields})


@door("marks", "processing.proposals.Mark")
def marks(add: Callable[..., None]) -> None:
    for what, fields in {
        "a point": {"point": (3, 4)}, "a box": {"box": (0, 0, 9, 9)}, "a mask": {"mask": np.ones(SIZE, bool)},
        "a mask without a size": {"mask": np.ones(SIZE, bool), "frame_size": None}, "the corner": {"point": (32, 24)},
    }.items():  # fmt: skip
        add(f"right: {what}", lambda f, v=fields: _mark(**v).to_cells(goods.processor_grid(), 3), expect="taken")
    add("nothing marked", lambda f: _mark(), "point")
    add("two marks", lambda f: _mark(point=(1, 1), box=(0, 0, 2, 2)), "point")
    for what, value in {
        "outside": (33, 4), "below zero": (-1, 4), "NaN": (np.nan, 1), "Inf": (np.inf, 1), "three numbers": (1, 2, 3), "a text": "12",
        "texts": ("1", "2"), "a number": 5, "bools": (True, False), "an array": np.array([1, 2]),
    }.items():  # fmt: skip
        add(f"point {what}", lambda f, v=value: _mark(point=v), "point")
    for what, value in {
        "outside": (0, 0, 33, 9), "turned": (9, 0, 3, 9), "without an area": (3, 3, 3, 9), "NaN": (0, 0, np.nan, 9), "two numbers": (1, 2), "a text": "1234",
        "nested": ((0, 0, 9, 9),),
    }.items():  # fmt: skip
        add(f"box {what}", lambda f, v=value: _mark(box=v), "box")
    for what, value in {
        "empty": np.zeros(SIZE, bool), "of floats": np.ones(SIZE), "of rank 3": np.ones((1, *SIZE), bool), "of another size": np.ones((9, 9), bool), "a list": [[True]],
        "a text": "x",
    }.items():  # fmt: skip
        add(f"mask {what}", lambda f, v=value: _mark(mask=v), "mask", "frame_size")
    for what, value in {"None": None, "a text": "x", "0": (0, 5), "one number": (5,), "floats": (24.5, 32.0), "NaN": (np.nan, 1)}.items():  # fmt: skip
        add(f"frame_size {what}", lambda f, v=value: _mark(point=(1, 1), frame_size=v), "frame_size")
    for what, value in NUMBERS.items():
        if what == "0":
            continue
        add(
            f"frame {what}",
            lambda f, v=value: _mark(point=(1, 1), frame=v).to_cells(goods.processor_grid(), 1),
            "frame",
        )


@door("clusters", "processing.proposals.ClusterProposer", "processing.proposals.TokenClusters",
      "processing.proposals.ProposalVideo")  # fmt: skip
def clusters(add: Callable[..., None]) -> None:
    def video(**fields: Any) -> Any:
        from processing.proposals import ProposalVideo

        grid = goods.processor_grid()
        given = {
            "frames": goods.pixels(),
            "tokens": np.random.default_rng(0).normal(size=(3, *grid.shape, 8)),
            "grid": grid,
        }
        return ProposalVideo(**{**given, **fields})

    def propose(**options: Any) -> Any:
        from processing.proposals import ClusterProposer

        return ClusterProposer(**options).propose(video())

    def cluster(tokens: Any) -> Any:
        from processing.proposals import TokenClusters

        return TokenClusters(tokens)

    add("right: as it is", lambda f: propose(), expect="taken")
    for what, change in {
        "NaN": lambda t: t * np.nan, "of integers": lambda t: t.astype(int), "of rank 3": lambda t: t[0], "none": lambda t: t[:0], "of another grid": lambda t: t[:, :1],
        "of other frames": lambda t: t[:2], "a list": lambda t: t.tolist(), "None": lambda t: None, "a text": lambda t: "x",
    }.items():  # fmt: skip
        add(f"video: tokens {what}", lambda f, c=change: video(tokens=c(video().tokens)), "tokens")
        expect = "taken" if what.startswith("of other frames") or what.startswith("of another") else "refused"
        add(f"clusters: tokens {what}", lambda f, c=change: cluster(c(video().tokens)), "tokens", expect=expect)
    for what, value in {"floats": goods.pixels() / 255, "None": None, "of rank 3": goods.pixels()[0], "a text": "x", "none": goods.pixels()[:0]}.items():  # fmt: skip
        add(f"video: frames {what}", lambda f, v=value: video(frames=v), "frames")
    for what, value in NUMBERS.items():
        expect = "taken" if what == "huge" else "refused"
        add(f"max_regions {what}", lambda f, v=value: propose(max_regions=v), "max_regions", expect=expect)
        add(f"max_overlap {what}", lambda f, v=value: propose(max_overlap=v), "max_overlap")


@door("words to masks", "processing.proposals.GroundedSam2Proposer", "processing.proposals.Sam2Tracker",
      "processing.proposals.Sam3Proposer")  # fmt: skip
def words_to_masks(add: Callable[..., None]) -> None:
    import torch

    class Segmenter(torch.nn.Module):
        """Stand-in with the names that are called before words are read."""

        init_video_session = add_text_prompt = propagate_in_video_iterator = None
        post_process_grounded_object_detection = config = None

    def video() -> Any:
        from processing.proposals import ProposalVideo

        grid = goods.processor_grid()
        return ProposalVideo(goods.pixels(), np.ones((3, *grid.shape, 4), np.float32), grid)

    def make(kind: str, *parts: Any, **options: Any) -> Any:
        import processing.proposals

        return getattr(processing.proposals, kind)(*parts, **options)

    part = Segmenter()
    for kind in ("Sam2Tracker", "Sam3Proposer"):
        add(f"right: {kind}", lambda f, k=kind: make(k, part, part), expect="taken")
        for what, value in {
            "None": None,
            "a text": "x",
            "a class": Segmenter,
            "another model": torch.nn.Linear(1, 1),
        }.items():
            add(f"{kind}: model {what}", lambda f, k=kind, v=value: make(k, v, part), "model")
            add(f"{kind}: processor {what}", lambda f, k=kind, v=value: make(k, part, v), "processor")
    grounded = "GroundedSam2Proposer"
    for what, value in {"None": None, "a text": "x", "a model": part}.items():
        add(f"{grounded}: tracker {what}", lambda f, v=value: make(grounded, part, part, v), "tracker")
    for what, value in {k: v for k, v in NUMBERS.items() if k != "0"}.items():
        add(
            f"{grounded}: threshold {what}",
            lambda f, v=value: make(grounded, part, part, make("Sam2Tracker", part, part), threshold=v),
            "threshold",
        )
    for what, value in {**TEXTS, "empty": [], "an empty text": [""], "a text": "chair", "a list": [5]}.items():
        add(f"words {what}", lambda f, v=value: make("Sam3Proposer", part, part).propose(video(), v), "words")


@door("finding in pictures")
def finding(add: Callable[..., None]) -> None:
    cached: dict[str, Any] = {}

    def session(name: str = "right") -> Any:
        from trainer.session import SceneSession

        if name not in cached:
            frames = goods.pixels() if name == "right" else 255 - goods.pixels()
            cached[name] = SceneSession(goods.model(), goods.processor(), frames, do_sample_frames=False)
        return cached[name]

    add("right: find", lambda f: session().find("the lamp"), expect="taken")
    add("right: words never seen", lambda f: session().find("xyzzy 🪑 łóżko"), expect="taken")
    add("right: describe_all", lambda f: session().describe_all(max_regions=2, max_new_tokens=2), expect="taken")
    add("right: follow", lambda f: session().follow(_mark(point=(3, 4))), expect="taken")
    for what, value in {
        **TEXTS,
        "spaces": "   ",
        "a list": ["the lamp"],
        "with a ground": "<ground>",
        "with a video": "<video>",
    }.items():
        add(f"description {what}", lambda f, v=value: session().find(v), "description", "text", "video")
    for what, make in {
        "of another video": lambda: session("other").propose(), "masks": lambda: session().propose().masks, "a text": lambda: "x", "a list": lambda: [],
    }.items():  # fmt: skip
        add(f"find: proposals {what}", lambda f, m=make: session().find("x", m()), "proposals")
        add(f"describe_all: proposals {what}", lambda f, m=make: session().describe_all(m()), "proposals")
    for what, value in {k: v for k, v in NUMBERS.items() if k != "huge"}.items():
        add(f"max_regions {what}", lambda f, v=value: session().describe_all(max_regions=v), "max_regions")
    for what, value in {"None": None, "a text": "x", "a point": (1, 2), "a frame beyond": None}.items():
        mark = (lambda: _mark(point=(1, 1), frame=9)) if what == "a frame beyond" else (lambda v=value: v)
        add(f"follow: mark {what}", lambda f, m=mark: session().follow(m()), "mark", "frame")
    for what, value in {"a text": "own", "a number": 5, "a class": type(session), "a function": len}.items():
        add(f"proposer {what}", lambda f, v=value: session().propose(v), "proposer")
