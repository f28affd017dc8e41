"""What a model that saw rendered rooms alone reads from a real walk, beside constants that look at no picture.

    python tests/benchmarks/real_transfer.py --data path/to/walk --output outputs/real_transfer.json

`--data` is a capture with depth and poses of any format that `open_capture` reads; without it the benchmark says why
it is skipped. All regressions are fitted on rendered rooms (`--rooms-style`, `--num-rooms`), but for those called
`first half`. The model is never trained further. Frames are squashed to the model's square input.

- depth: a ridge regression from a cell's token to log depth, at each layer. `height` knows the row of the cell alone,
  `cell mean` the mean of the rooms at that cell, `colour` the cell's mean colour, row and column. `first half` is the
  regression fitted on the first half of the walk; it and its constants are scored on the second half.
- variations (`--parts variations`): the same, fitted on rooms with one variation of `load_rooms`, or with several.
- change (`--parts change --before FOLDER`): depth by two models, cell by cell.
- pose, covisibility: ridge regressions from matches of cells, see `transfer_pairs`.
- following: `follow_clicks` on videos of the walk.
- questions: closer, left or right, how far, how tall, see `transfer_questions`; baselines are fitted on rooms.

Bands are 95 % over blocks of successive frames (jackknife, as for all scores of the package). Those of one walk say
nothing about other places.
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from benchmarks import follow_clicks  # noqa: E402
from benchmarks.transfer_depth import Predictors, collect_cells, find_best_layer, score_depth  # noqa: E402
from benchmarks.transfer_pairs import collect_pairs, score_covisibility, score_poses  # noqa: E402
from benchmarks.transfer_questions import make_row  # noqa: E402
from benchmarks.walk_cameras import level  # noqa: E402

from ide3d.nano import nano_model  # noqa: E402
from processing import PosedVideo, TokenGrid  # noqa: E402
from processing.captures import open_capture  # noqa: E402
from processing.rooms import load_rooms  # noqa: E402
from processing.rooms.questions.baselines import Baselines  # noqa: E402
from processing.rooms.scene.styles import STYLES  # noqa: E402
from processing.rooms.variations import VARIATIONS  # noqa: E402
from processing.tables import format_number, markdown_table  # noqa: E402
from trainer.evaluation.probes.token_sources import IDE3DTokens  # noqa: E402
from trainer.evaluation.rooms import judge_rooms, tabulate  # noqa: E402
from trainer.session import SceneSession, load_inference_model  # noqa: E402

logger = logging.getLogger("real_transfer")

PARTS = ("depth", "pairs", "following", "questions")
MORE_PARTS = ("variations", "change")
CAMERAS, LOOKS = ("pitch", "height", "roll", "field_of_view"), ("texture", "light")
FAULTS = tuple(name for name in VARIATIONS if name not in (*CAMERAS, *LOOKS))
GROUPS = {"all of cameras": CAMERAS, "all faults": FAULTS, "all looks": LOOKS, "all": VARIATIONS}
RADIUS = 0.3  # metres around a point clicked on
SEED = 0


def cut_blocks(video: PosedVideo, number: int) -> list[PosedVideo]:
    """Return a walk in blocks of successive frames, named in order.

    Raises:
        ValueError: If a block would have fewer than two frames.
    """
    if len(video) < 2 * number:
        raise ValueError(f"{number} blocks need at least {2 * number} frames, got {len(video)}. Lower `--blocks`.")
    edges = np.linspace(0, len(video), number + 1).astype(int)
    return [
        dataclasses.replace(video.select_frames(range(a, b)), scene_id=f"block {index:03d}")
        for index, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def measure_depth(source: IDE3DTokens, rooms: list[PosedVideo], blocks: list[PosedVideo]) -> dict:
    """Score depth of all layers, and of the halves of the walk."""
    layers = tuple(name for name in source.layers if name.startswith("vision."))
    known, real = collect_cells(source, rooms, layers), collect_cells(source, blocks, layers)
    best = find_best_layer(known)
    is_first = np.isin(real.scenes, [block.scene_id for block in blocks[: len(blocks) // 2]])
    first, second = real.select(is_first), real.select(~is_first)
    on_rooms, on_walk = Predictors(known), Predictors(first)
    halves = {f"rooms, {name}": values for name, values in on_rooms.predict(second).items()}
    halves |= {f"first half, {name}": values for name, values in on_walk.predict(second).items()}
    return {
        "best_layer_on_rooms": best,
        "cells": len(real.depth),
        "all": score_depth(on_rooms.predict(real), real),
        "second_half": score_depth(halves, second, "rooms, colour"),
    }


def measure_change(
    before: IDE3DTokens, source: IDE3DTokens, rooms: list[PosedVideo], blocks: list[PosedVideo]
) -> dict[str, dict]:
    """Score depth of two models of the same grid on the same cells, by layer; differences are from the first."""
    layers = tuple(name for name in source.layers if name.startswith("vision."))
    real = collect_cells(before, blocks, layers)
    reads = [
        Predictors(collect_cells(model, rooms, layers)).predict(collect_cells(model, blocks, layers))
        for model in (before, source)
    ]
    return {
        layer: score_depth(
            dict(zip(("before", "after"), (read[layer] for read in reads), strict=True)), real, "before"
        )
        for layer in layers
    }


def measure_pairs(source: IDE3DTokens, rooms: list[PosedVideo], blocks: list[PosedVideo]) -> dict:
    """Score relative poses and covisibility, by the tower's last layer."""
    layer = [name for name in source.layers if name.startswith("vision.")][-1]
    known, real = collect_pairs(source, rooms, layer), collect_pairs(source, blocks, layer)
    return {"pose": score_poses(known, real), "covisibility": score_covisibility(known, real)}


def measure_variations(
    source: IDE3DTokens, blocks: list[PosedVideo], load: Callable[[tuple], datasets.Dataset]
) -> dict:
    """Score depth with regressions fitted on rooms of one variation, of groups of them, and of all.

    Differences are from the same predictor fitted on rooms without any.
    """
    layers = tuple(name for name in source.layers if name.startswith("vision."))
    real, plain, results = collect_cells(source, blocks, layers), {}, {}
    for name, chosen in {"none": (), **{name: (name,) for name in VARIATIONS}, **GROUPS}.items():
        known = collect_cells(source, (PosedVideo.from_room(row) for row in load(chosen)), layers)
        read = Predictors(known).predict(real)
        plain = plain or read
        results[name] = {
            predictor: {
                score: values["varied"]
                for score, values in score_depth({"plain": plain[predictor], "varied": own}, real, "plain").items()
            }
            for predictor, own in read.items()
        }
        logger.info("%s: %s", name, find_best_layer(known))
    return results


def measure_following(model, processor, video: PosedVideo, gap: int) -> dict:
    """Follow clicks through short videos of the walk."""
    clicks, names = [], []
    for number, part in enumerate(follow_clicks.cut(video, processor.video_processor.num_frames, gap)):
        session = SceneSession(model, processor, part.frames, do_sample_frames=False)
        own = list(follow_clicks.judge(session, part, RADIUS))
        clicks += own
        names += [f"video {number}"] * len(own)
    if not clicks:
        raise ValueError("No place of the walk is measured in two frames of one video. Lower `--gap`.")
    return follow_clicks.tabulate(clicks, names)


def question_rows(video: PosedVideo, num_frames: int, gap: int) -> Iterator[dict]:
    """Yield rows of questions about the frame that each short video of the walk begins with."""
    for start in range(0, len(video) - (num_frames - 1) * gap):
        part = video.select_frames(range(start, start + num_frames * gap, gap))
        row = make_row(dataclasses.replace(part, scene_id=f"frame {start:05d}"), np.random.default_rng((SEED, start)))
        if row["questions"]:
            yield row


def measure_questions(model, processor, rooms: datasets.Dataset, video: PosedVideo, gap: int, blocks: int) -> list:
    """Ask the model about things of the walk; bands are over blocks of successive questions' frames."""
    rows = list(question_rows(level(video), processor.video_processor.num_frames, gap))
    if not rows:
        raise ValueError("No frame of the walk shows two things that can be told apart by depth.")
    judged = judge_rooms(model, processor, rows, Baselines(rooms), "region")
    place = {row["scene_id"]: index * blocks // len(rows) for index, row in enumerate(rows)}
    judged = [dataclasses.replace(entry, scene_id=f"block {place[entry.scene_id]:03d}") for entry in judged]
    return tabulate(judged)


def _cell(entry: dict, digits: int = 3) -> str:
    return format_number(entry["value"], digits)


def _difference(entry: dict) -> str:
    if entry["is_reference"]:
        return ""
    low, high = entry["difference_band"]
    band = "" if low is None else f" ({low:+.3f} to {high:+.3f})"
    return f"{entry['difference']:+.3f}{band}"


def depth_table(scores: dict[str, dict[str, dict]], reference: str) -> str:
    """Return depth scores by predictor in Markdown."""
    rows = [
        [
            name,
            *(_cell(scores[key][name]) for key in ("abs_rel", "delta1", "closer", "metric_abs_rel", "metric_delta1")),
        ]
        + [_difference(scores["abs_rel"][name]), _difference(scores["closer"][name])]
        for name in scores["abs_rel"]
    ]
    head = ["predictor", "AbsRel", "delta1", "closer", "metric AbsRel", "metric delta1"]
    head += [f"AbsRel - {reference}", f"closer - {reference}"]
    return markdown_table(head, rows, "lrrrrrrr")


def variation_table(results: dict[str, dict]) -> str:
    """Return depth scores by variation in Markdown: those of colour and place, and of the tower's layers."""
    predictors = ("colour", *(name for name in next(iter(results.values())) if name.startswith("vision.")))
    rows = []
    for name, found in results.items():
        for predictor in predictors:
            own = found[predictor]
            cells = [_cell(own[key]) for key in ("abs_rel", "delta1", "closer", "metric_abs_rel")]
            changes = ["" if name == "none" else _difference(own[key]) for key in ("abs_rel", "closer")]
            rows.append([name if predictor == "colour" else "", predictor, *cells, *changes])
    head = ["rooms", "predictor", "AbsRel", "delta1", "closer", "metric AbsRel", "AbsRel - none", "closer - none"]
    return markdown_table(head, rows, "llrrrrrr")


def format_results(results: dict) -> str:
    """Return all tables in Markdown."""
    parts = []
    if "depth" in results:
        found = results["depth"]
        parts += [f"Depth, {found['cells']} cells; rooms choose {found['best_layer_on_rooms']}:"]
        parts += [depth_table(found["all"], "colour"), "Depth of the second half:"]
        parts += [depth_table(found["second_half"], "rooms, colour")]
    if "change" in results:
        rows = [
            [
                layer,
                *(_cell(found[key][name]) for key in ("abs_rel", "delta1", "closer") for name in ("before", "after")),
            ]
            + [_difference(found[key]["after"]) for key in ("abs_rel", "delta1", "closer")]
            for layer, found in results["change"].items()
        ]
        head = [f"{key}, {name}" for key in ("AbsRel", "delta1", "closer") for name in ("before", "after")]
        head += [f"{key} - before" for key in ("AbsRel", "delta1", "closer")]
        parts.append(markdown_table(["layer", *head], rows, "lrrrrrrrrr"))
    if "pairs" in results:
        scores = {**results["pairs"]["pose"], "covisibility": results["pairs"]["covisibility"]}
        rows = [
            [key, name, _cell(own), _difference(own)] for key, found in scores.items() for name, own in found.items()
        ]
        parts.append(markdown_table(["pairs", "predictor", "value", "difference from the first"], rows, "llrr"))
    if "variations" in results:
        parts.append(variation_table(results["variations"]))
    if "following" in results:
        found = results["following"]["cells_at_truth"]
        rows = [[name, own["percent"], "{} to {}".format(*own["band"])] for name, own in found.items()]
        parts.append(markdown_table(["following", "cells at the truth, %", "95 % band"], rows, "lrr"))
    if "questions" in results:
        rows = [
            [
                row["type"],
                row["n"],
                f"{row['model']:.3f}",
                row["best"],
                f"{row[row['best']]:.3f}",
                f"{row['lead']:+.3f}",
            ]
            + ["" if row["lead_band"][0] is None else "{:+.3f} to {:+.3f}".format(*row["lead_band"])]
            for row in results["questions"]
        ]
        head = ["question", "n", "model", "best constant", "its share", "lead", "95 % band"]
        parts.append(markdown_table(head, rows, "lrrlrrr"))
    return "\n\n".join(parts) + "\n"


def parse_arguments() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Walk with depth and poses. Without it nothing is measured.")
    parser.add_argument("--model", default=str(nano_model()), help="Folder of an export. Default: the nano model.")
    parser.add_argument("--before", help="Another export of the same input size, for `--parts change`.")
    parser.add_argument("--rooms-style", default="plain", choices=tuple(STYLES), help="Rooms of the regressions.")
    parser.add_argument("--variations", nargs="+", default=(), choices=VARIATIONS, help="Variations of these rooms.")
    parser.add_argument("--num-rooms", type=int, default=300, help="Rooms of the regressions and of the baselines.")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=(*PARTS, *MORE_PARTS), help="What is measured.")
    parser.add_argument("--blocks", type=int, default=10, help="Blocks of successive frames, for bands.")
    parser.add_argument("--gap", type=int, default=3, help="Steps of the walk between frames of a short video.")
    parser.add_argument("--output", type=Path, help="JSON file of all results.")
    return parser.parse_args()


def main() -> None:
    """Measure and print tables."""
    args = parse_arguments()
    logging.basicConfig(level=logging.WARNING)
    if args.data is None or not args.data.exists():
        missing = "no real walk was given" if args.data is None else f"there is no real walk at {args.data}"
        sys.stdout.write(f"Skipped: {missing}. Give --data FOLDER, a capture with depth and poses.\n")
        return
    if "change" in args.parts and args.before is None:
        raise ValueError("--parts change needs --before, the export that the model is compared with.")
    torch.set_num_threads(1)
    video = open_capture(args.data)
    if not video.has_geometry:
        raise ValueError(f"{args.data} lacks depth, cameras or poses: expected a capture that has all three.")
    model, processor = load_inference_model(args.model, device="cpu", dtype=torch.float32)
    size, num_frames = max(TokenGrid.of(processor).image_size), processor.video_processor.num_frames
    options = {"style": args.rooms_style, "image_size": size, "num_frames": num_frames}

    def load(variations: Sequence[str]) -> datasets.Dataset:
        return load_rooms("train", args.num_rooms, variations=variations, **options)

    rooms, blocks = load(args.variations), cut_blocks(video, args.blocks)
    videos = [PosedVideo.from_room(row) for row in rooms]
    source = IDE3DTokens(model, processor)
    measures = {
        "depth": lambda: measure_depth(source, videos, blocks),
        "pairs": lambda: measure_pairs(source, videos, blocks),
        "following": lambda: measure_following(model, processor, video, args.gap),
        "questions": lambda: measure_questions(model, processor, rooms, video, args.gap, args.blocks),
    }
    measures["variations"] = lambda: measure_variations(source, blocks, load)
    if args.before is not None:
        earlier = IDE3DTokens(*load_inference_model(args.before, device="cpu", dtype=torch.float32))
        measures["change"] = lambda: measure_change(earlier, source, videos, blocks)
    results = {}
    for part in args.parts:
        results[part] = measures[part]()
        sys.stdout.write(format_results({part: results[part]}) + "\n")
        sys.stdout.flush()
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
