"""What a demo leaves in its folder, in miniature."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

VIEWS, SIDE, ROWS, COLS = 4, 48, 6, 6


def answer(kind: str, question: str, said: str, truth: str, **more: str) -> dict:
    return {"type": kind, "question": question, "answer": said, "truth": truth, "is_right": said == truth, **more}


def block(top: int, left: int) -> np.ndarray:
    mask = np.zeros((VIEWS, ROWS, COLS), bool)
    mask[:, top : top + 2, left : left + 2] = True
    return mask


def write_scene(folder: Path, name: str, found: np.ndarray, truth: np.ndarray, is_tuned: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = [{"before": "9 meters"}, {"before": "<ground>"}] if is_tuned else [{}, {}]
    answers = [
        answer("distance", "How far is the <big> chair?", "2.4 meters", "2.4 meters", **said[0]),
        answer("counting", "How many lamps are in the room?", "2", "1", **said[1]),
    ]
    facts = {"scene_id": name, "request": "Find the <big> lamp.", "found": "lamp", "truth": "lamp"}
    facts |= {"is_right": bool((found == truth).all()), "answers": answers}
    (folder / f"{name}.json").write_text(json.dumps(facts | ({"before": "red sofa"} if is_tuned else {})))
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = np.stack([y * 5, x * 5, (x + y) * 2], axis=-1).astype(np.uint8)
    depth = np.broadcast_to(1 + (x + y) / SIDE, (VIEWS, SIDE, SIDE)).astype(np.float32).copy()
    predicted = {"predicted_depth": depth[:, ::2, ::2] * 1.05} if is_tuned else {}
    depth[:, 0] = 0  # no measurement
    np.savez_compressed(
        folder / f"{name}.npz",
        frames=np.stack([np.roll(picture, 4 * view, axis=1) for view in range(VIEWS)]),
        depth=depth,
        found_mask=found,
        true_mask=truth,
        **predicted,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    score = {"type": "distance", "n": 100, "majority": 0.2, "text": 0.21, "mean_row": 0.35, "bottom_row": 0.4}
    summary = {
        "shipped": {
            "scores": [
                {**score, "model": 0.62},
                {**score, "type": "colour", "model": 0.3, "text": 0.5, "mean_row": None, "bottom_row": None},
            ],
            "grounding": {"n": 50, "model": 0.7, "chance": 0.2},
        },
        "fine_tuned": {
            "scores": [{**score, "before": 0.3, "after": 0.61}],
            "mean": {"before": 0.3, "after": 0.61, "gain": 0.31, "standard_error": 0.02},
            "grounding": {"n": 50, "before": 0.1, "after": 0.6, "chance": 0.2},
        },
        "depth": {"abs_rel": 0.111, "abs_rel_constant": 0.333, "delta_1.25": 0.87},
        "seconds": {"training": 301.5, "export": 2.0},
        "parameters": {"training": 2_000_000, "export": 1_600_000},
        "rooms": {"train": 1500, "test": 100},
        "checks": [
            {"name": "distance beats its baselines", "passed": True, "detail": "62 against 40"},
            {"name": "colour beats its baselines", "passed": False, "detail": "30 < 50"},
        ],
        "passed": False,
    }
    history = [{"step": n, "loss": 5 * math.exp(-n / 9), "loss_depth": 1 / n, "epoch": 1.0} for n in range(1, 30)]
    history += [{"step": 29, "eval_loss": 1.0}, {"step": 30, "train_loss": 2.0}]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "log_history.json").write_text(json.dumps(history))
    nothing, region = np.zeros((VIEWS, ROWS, COLS), bool), block(3, 3)
    write_scene(tmp_path / "scenes" / "shipped", "room_s", region, region, is_tuned=False)
    write_scene(tmp_path / "scenes" / "fine_tuned", "room_0", nothing, region)
    write_scene(tmp_path / "scenes" / "fine_tuned", "room_1", region, region)
    return tmp_path
