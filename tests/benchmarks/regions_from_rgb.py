"""Regions from pictures alone, on rooms: how well they are proposed, found by words, and followed from a click.

    python tests/benchmarks/regions_from_rgb.py --num-rooms 100

It prints one JSON object. A proposal or a found region is compared with the true cells of an object by IoU on the
token grid. `find` has the share of requests answered rightly. That is: the best region found is that of a meant
object, with an IoU of at least 0.25 and more than with any other object; or none is found where none is meant. Beside
it stand the same model with the true regions, and chance. `follow` clicks once on each object that fills half of a
cell, in the frame where it is largest, and once on the wall or floor of each frame. Chance is the share of the other
frames' cells that show the object: as many cells taken at random. Bands are 95 % over rooms. `--fit` prints the
coefficients of `OBJECTNESS` by training rooms; `--calibrate` prints the best weights and margins of
`trainer.session.finding`.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ide3d.nano import nano_model
from processing.proposals import Mark, RegionProposals, TokenClusters, clusters
from processing.regions import regions_from_ids
from processing.rooms import load_rooms
from processing.writing import write_json
from trainer.evaluation.metrics.scores import mean_score, summarise
from trainer.session import SceneSession, finding, load_inference_model

LEAST_IOU = 0.25
WEIGHTS, MARGINS = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
SEVERAL = (0.0, 0.02, 0.05, 0.1, 0.15)
COMPARED = {  # measures of a request or click; None where it has none
    "found_regions": lambda entry: entry.get("right"),
    "found_where_there_is_one": lambda entry: entry["right"] if entry.get("is_there") else None,
    "true_regions": lambda entry: entry.get("right_with_true"),
    "tokens_at_truth": lambda entry: entry.get("tokens_at_truth"),
    "truth_covered": lambda entry: entry.get("truth_covered"),
}


@dataclass
class Scene:
    """A room as a session shows it, with what is true of it."""

    session: SceneSession
    ids: np.ndarray
    objects: np.ndarray
    true: torch.Tensor
    requests: list[tuple[torch.Tensor, torch.Tensor, np.ndarray]]  # cosines of proposals, of true regions; meant


def iou(masks: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    """Return the IoU (N, M) of masks (N, ...) and (M, ...)."""
    a, b = (values.flatten(1).float() for values in (masks, others))
    shared = a @ b.T
    return (shared / (a.sum(1)[:, None] + b.sum(1) - shared).clamp(min=1)).numpy()


def open_rooms(model, processor, rooms: Iterable[dict]) -> Iterable[Scene]:
    """Show rooms to the model, and compare their requests in words with found and with true regions."""
    for row in rooms:
        frames = np.stack([np.asarray(frame) for frame in row["frames"]])
        session = SceneSession(model, processor, frames, do_sample_frames=False)
        ids = np.stack([np.asarray(image) for image in row["instance_ids"]])
        objects = np.array([thing["id"] for thing in row["objects"]])
        masks = regions_from_ids(ids, objects, session.token_grid)
        seen = masks.flatten(1).any(1)
        objects, masks = objects[seen.numpy()], masks[seen]
        asked = [q for q in row["questions"] if q["type"] == "grounding" and q["reference"] == "word"]
        requests = []
        if asked:
            texts, count = [q["question"] for q in asked], len(session.propose())
            both = torch.cat([session.propose().masks, masks])
            cosines = session.ground(texts, both, template="{description}")
            for question, row_of in zip(asked, cosines, strict=True):
                meant = np.isin(objects, question["target_objects"])
                requests.append((torch.cat([row_of[:count], row_of[-1:]]), row_of[count:], meant))
        yield Scene(session, ids, objects, masks, requests)


def judge(scene: Scene, proposals: RegionProposals) -> list[dict]:
    """Return for each request whether the best region is right, and how the found set overlaps the meant one."""
    overlaps = iou(proposals.masks, scene.true)
    judged = []
    for cosines, true_cosines, meant in scene.requests:
        names = finding.choose_proposals("", cosines, proposals).names
        chosen = [proposals.names.index(name) for name in names]
        hits = [int(overlaps[n].argmax()) if overlaps[n].max() >= LEAST_IOU else -1 for n in chosen]
        right = {n for n in hits if n >= 0 and meant[n]}
        f1 = 2 * len(right) / (len(chosen) + meant.sum()) if len(chosen) + meant.sum() else 1.0
        with_true = int(true_cosines.argmax())
        judged.append(
            {
                "right": hits[0] >= 0 and bool(meant[hits[0]]) if chosen else not meant.any(),
                "f1": f1,
                "is_there": bool(meant.any()),
                "right_with_true": bool(meant[with_true]) if with_true < len(meant) else not meant.any(),
                "right_by_chance": float(np.append(meant, not meant.any()).mean()),
            }
        )
    return judged


def follow(scene: Scene) -> tuple[list[dict], list[bool]]:
    """Click on every object and on the background of every frame."""
    clicks, background = [], []
    size = scene.ids.shape[1:]
    half = regions_from_ids(scene.ids, scene.objects, scene.session.token_grid, min_share=0.5)
    for index, number in enumerate(scene.objects):
        pixels = scene.ids == number
        frame = int(pixels.sum((1, 2)).argmax())
        rows, cols = pixels[frame].nonzero()
        middle = ((rows - rows.mean()) ** 2 + (cols - cols.mean()) ** 2).argmin()
        mark = Mark(frame, size, point=(float(cols[middle]) + 0.5, float(rows[middle]) + 0.5))
        if not (half[index, frame].numpy() & mark.to_cells(scene.session.token_grid, len(scene.ids))).any():
            continue
        found = scene.session.follow(mark)
        others = torch.arange(len(scene.ids)) != frame
        there, true = found.mask[others], scene.true[index][others]
        both = float((there & true).sum())
        clicks.append(
            {
                "is_object": found.is_object,
                "iou": float(iou(found.mask[None], scene.true[index][None])[0, 0]),
                "tokens_at_truth": both / float(there.sum()) if there.any() else None,
                "tokens_at_chance": float(true.float().mean()) if there.any() else None,
                "truth_covered": both / float(true.sum()) if true.any() else None,
            }
        )
    rng = np.random.default_rng(0)
    for frame, ids in enumerate(scene.ids):
        rows, cols = (ids == 0).nonzero()
        if len(rows):
            pick = rng.integers(len(rows))
            mark = Mark(frame, size, point=(float(cols[pick]) + 0.5, float(rows[pick]) + 0.5))
            background.append(scene.session.follow(mark).is_object)
    return clicks, background


def percent(values: Iterable) -> float:
    """Return the mean of what is known, in percent."""
    known = [float(value) for value in values if value is not None]
    return round(100 * float(np.mean(known)), 1) if known else float("nan")


def band(groups: list[list[dict]], key: str) -> list[float | None]:
    """Return the 95 % band over rooms of the mean of what is known, in percent; one group a room."""
    known = [(entry[key], room) for room, own in enumerate(groups) for entry in own if entry[key] is not None]
    values, rooms = zip(*known, strict=True)
    ends = summarise({key: mean_score(values)}, list(map(str, rooms)))["bands"][key]
    return [None if end is None else round(end, 1) for end in ends]


def measure(scenes: list[Scene]) -> tuple[dict, list[list[dict]]]:
    """Return recall, finding and following; and what each request and click of each room gave."""
    proposals = [scene.session.propose() for scene in scenes]
    best = np.concatenate(
        [iou(scene.true, own.masks).max(1) for scene, own in zip(scenes, proposals, strict=True) if len(scene.true)]
    )
    asked = [judge(scene, own) for scene, own in zip(scenes, proposals, strict=True)]
    judged = [entry for own in asked for entry in own]
    followed = [follow(scene) for scene in tqdm(scenes, desc="Clicks", delay=5, disable=None)]
    groups = [group for group, _ in followed]
    clicks = [entry for group in groups for entry in group]
    there, absent = ([e for e in judged if e["is_there"] is kind] for kind in (True, False))
    found = {
        "rooms": len(scenes),
        "objects": len(best),
        "recall_iou_25": percent(best >= 0.25),
        "recall_iou_50": percent(best >= 0.5),
        "proposals_per_frame": float(
            np.mean([len(p) / s.session.num_frames for s, p in zip(scenes, proposals, strict=True)])
        ),
        "find": {
            "requests": len(judged),
            "found_regions": percent(e["right"] for e in judged),
            "found_regions_band": band(asked, "right"),
            "found_regions_f1": percent(e["f1"] for e in judged),
            "found_where_there_is_one": percent(e["right"] for e in there),
            "none_where_there_is_none": percent(e["right"] for e in absent),
            "true_regions": percent(e["right_with_true"] for e in judged),
            "true_regions_band": band(asked, "right_with_true"),
            "always_none": percent(not e["is_there"] for e in judged),
            "chance_with_true_regions": percent(e["right_by_chance"] for e in judged),
        },
        "follow": {
            "clicks": len(clicks),
            "tokens_at_truth": percent(e["tokens_at_truth"] for e in clicks),
            "tokens_at_truth_band": band(groups, "tokens_at_truth"),
            "tokens_at_chance": percent(e["tokens_at_chance"] for e in clicks),
            "truth_covered": percent(e["truth_covered"] for e in clicks),
            "truth_covered_band": band(groups, "truth_covered"),
            "iou": percent(e["iou"] for e in clicks),
            "called_object": percent(e["is_object"] for e in clicks),
            "background_called_object": percent(called for _, group in followed for called in group),
        },
    }
    return found, [[*own, *group] for own, group in zip(asked, groups, strict=True)]


def compare(ours: list[list[dict]], theirs: list[list[dict]]) -> dict:
    """Return by measure ours minus theirs over the requests or clicks that both know, in percent, with its band.

    Args:
        ours: What each request and click of each room gave, as `measure` returns it.
        theirs: The same of another model, on the same rooms.
    """
    pairs = [
        (room, our, their)
        for room, (own, other) in enumerate(zip(ours, theirs, strict=True))
        for our, their in zip(own, other, strict=True)
    ]
    if any(our.get("is_there") != their.get("is_there") for _, our, their in pairs):
        raise ValueError("The answers are to different requests. Measure both models on the same rooms.")
    found = {}
    for name, measure_of in COMPARED.items():
        known = [(room, measure_of(our), measure_of(their)) for room, our, their in pairs]
        known = [entry for entry in known if None not in entry]
        if known:
            rooms, our, their = zip(*known, strict=True)
            gaps = {name: mean_score(np.subtract(our, their, dtype=float))}
            gap = summarise(gaps, list(map(str, rooms)))
            ends = [None if end is None else round(end, 1) for end in gap["bands"][name]]
            found[name] = {"count": len(known), "difference": round(gap[name], 1), "band": ends}
    return found


def use_settings(found: dict | list[dict]) -> None:
    """Set scores, weights and margins as `--fit` or `--calibrate` print them; of several the first."""
    for name, value in (found[0] if isinstance(found, list) else found).items():
        if name == "OBJECTNESS":
            clusters.OBJECTNESS = np.array(value)
        elif hasattr(finding, name):
            setattr(finding, name, value)


def calibrate(scenes: list[Scene]) -> list[dict]:
    """Return the ten best settings of weight and margins by right requests, then by F1."""
    rows = []
    for weight in WEIGHTS:
        for margin in MARGINS:
            for several in SEVERAL:
                names = {"OBJECTNESS_WEIGHT": weight, "NO_OBJECT_MARGIN": margin, "SEVERAL_MARGIN": several}
                with mock.patch.multiple(finding, **names):
                    judged = [entry for scene in scenes for entry in judge(scene, scene.session.propose())]
                rows.append({**names, **{key: percent(e[key] for e in judged) for key in ("right", "f1")}})
    return sorted(rows, key=lambda row: (row["right"], row["f1"]), reverse=True)[:10]


def fit(scenes: Iterable[Scene]) -> dict[str, list[list[float]]]:
    """Return the coefficients `OBJECTNESS`, by least squares."""
    statistics, targets = [], []
    for scene in scenes:
        own = TokenClusters(scene.session.video.tokens)
        statistics.append(own.statistics)
        targets.append(iou(torch.from_numpy(own.members), scene.true).max(1))
    z = np.concatenate(statistics)
    z = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    rows, cols = np.triu_indices(z.shape[1])
    coefficients = np.zeros((z.shape[1], z.shape[1]))
    coefficients[rows, cols] = np.linalg.lstsq(z[:, rows] * z[:, cols], np.concatenate(targets), rcond=None)[0]
    return {"OBJECTNESS": coefficients.round(4).tolist()}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(nano_model()), help="Folder of an export. Default: the nano model.")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--num-rooms", type=int, default=100)
    parser.add_argument("--fit", action="store_true", help="print OBJECTNESS by as many training rooms")
    parser.add_argument("--calibrate", action="store_true", help="print the best weights and margins")
    parser.add_argument("--settings", type=Path, nargs="+", default=[], help="what --fit and --calibrate printed")
    parser.add_argument("--answers", type=Path, help="file to write what each request and click gave")
    parser.add_argument("--against", type=Path, help="answers of another model to compare with")
    args = parser.parse_args()
    for path in args.settings:
        use_settings(json.loads(path.read_text()))
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    model, processor = load_inference_model(args.model, device="cpu", dtype=torch.float32)
    size = {"image_size": processor.image_size, "num_frames": processor.video_processor.num_frames}
    rooms = load_rooms("train" if args.fit else args.split, args.num_rooms, **size)
    scenes = open_rooms(model, processor, tqdm(rooms, desc="Rooms", unit="room", delay=5, disable=None))
    if args.fit:
        result = fit(scenes)
    else:
        scenes = list(scenes)
        result, entries = (calibrate(scenes), []) if args.calibrate else measure(scenes)
        if args.against:
            result["against"] = compare(entries, json.loads(args.against.read_text()))
        if args.answers:
            write_json(args.answers, entries)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
