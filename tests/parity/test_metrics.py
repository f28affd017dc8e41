"""Benchmark metrics against the scores that the original's scripts print."""

import json

import numpy as np
import pytest

from trainer.evaluation.metrics import load_metric
from trainer.evaluation.metrics.answers import clean_answer, question_type
from trainer.evaluation.metrics.boxes import box_iou, choose_objects, matched_f1
from trainer.evaluation.metrics.ngrams import caption_text, ngram_scores

pytestmark = pytest.mark.parity
RELATIVE = 1e-6


@pytest.fixture(scope="session")
def golden_lines(golden_path):
    """Rows of a golden JSONL file."""
    return lambda name: [json.loads(line) for line in golden_path(f"metrics/{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def expected(golden_json):
    return golden_json("metrics/expected.json")


def close(value):
    return pytest.approx(value, rel=RELATIVE, abs=1e-9)


def compute(name, predictions, references, **options):
    references = [{"scene_id": str(index), **row} for index, row in enumerate(references)]
    metric = load_metric(name)
    return metric.compute(predictions=predictions, references=references, protocol="paper", bands=False, **options)


def test_box_overlap(golden_json):
    for case in golden_json("metrics/box_iou.json"):
        iou = box_iou([case["box_a"]], [case["box_b"]], protocol="paper")[0, 0]
        assert iou == close(case["iou"])


def test_scanrefer(golden_lines, expected):
    lines = golden_lines("scanrefer")
    scores = compute(
        "scanrefer",
        [{"box": line["pred_response"]} for line in lines],
        [{"box": line["gt_response"], "question_type": line["question_type"]} for line in lines],
    )
    for key, value in expected["scanrefer"].items():
        kind, limit = key.split(" iou@")
        name = f"acc@{limit}" if kind == "all" else f"{kind}/acc@{limit}"
        assert scores[name] == close(value), key


def test_multi3drefer(golden_lines, expected):
    lines = golden_lines("multi3drefer")
    cases = {key.removeprefix("multi3drefer_threshold"): key for key in expected if key.startswith("multi3drefer")}
    assert cases
    for threshold, case in cases.items():
        predictions = []
        for line in lines:
            chosen = choose_objects(line["scores"], threshold=float(threshold), protocol="paper")
            predictions.append({"boxes": [line["objects"][index] for index in chosen]})
        references = [{"boxes": line["gt_response"], "question_type": line["question_type"]} for line in lines]
        scores = compute("multi3drefer", predictions, references)
        for key, value in expected[case].items():
            kind, limit = key.split(" IoU")
            name = f"f1@{int(limit) / 100:g}"
            assert scores[name if kind == "all" else f"{kind}/{name}"] == close(100 * value), (case, key)


def test_multi3drefer_by_item(golden_lines, golden_json):
    rows = {row["sample_id"]: row for row in golden_json("metrics/multi3drefer_per_item_threshold0.4.json")}
    for line in golden_lines("multi3drefer"):
        row = rows[line["sample_id"]]
        chosen = choose_objects(line["scores"], protocol="paper")
        assert chosen == row["selected"]
        boxes = [line["objects"][index] for index in chosen]
        for limit, key in ((0.25, "f1_25"), (0.5, "f1_50")):
            assert matched_f1(boxes, line["gt_response"], limit, protocol="paper") == close(row[key])


def test_scan2cap(golden_lines, golden_json, expected):
    lines = golden_lines("scan2cap")
    predictions = [{"text": line["pred_response"], "iou": None} for line in lines]
    scores = compute("scan2cap", predictions, [{"texts": line["gt_response"]} for line in lines], meteor=False)
    truth = expected["scan2cap"]
    assert scores["cider"] == close(truth["CIDER"])
    assert scores["rouge-l"] == close(truth["Rouge"])
    assert [scores[f"bleu-{order}"] for order in (1, 2, 3, 4)] == close(truth["BLEU1to4"])
    assert scores["bleu-4"] == close(truth["BLEU"])
    texts = [caption_text(line["pred_response"]) for line in lines]
    parts = ngram_scores(texts, [[caption_text(text) for text in line["gt_response"]] for line in lines])
    items = golden_json("metrics/scan2cap_per_item.json")
    assert [item["hyp"] for item in items] == texts
    for name, key in (("cider", "cider"), ("rouge-l", "rouge_l")):
        np.testing.assert_allclose(
            parts[name].statistics[:, 0] / 100, [item[key] for item in items], rtol=RELATIVE, atol=1e-9
        )


def test_scan2cap_gate(golden_json):
    cases = golden_json("metrics/scan2cap_gating.json")
    assert any(case["select_index"] is None for case in cases)
    for case in cases:
        boxes = np.array(case["pred_boxes"])
        overlaps = box_iou([case["gt_box"]], boxes, protocol="paper")[0]
        index = int(overlaps.argmax()) if overlaps.max(initial=0) >= 0.5 else None
        assert index == case["select_index"]
        if index is not None:
            assert case["pred_boxes"][index] == case["select_box"]


def test_scanqa(golden_lines, golden_json, expected):
    answers = {
        row["id"].rsplit("_", 1)[0]: row["metadata"]["answers"]
        for row in golden_json("metrics/scanqa_val_llava_style.json")
    }
    lines = golden_lines("scanqa")
    ids = [line["sample_id"].rsplit("_", 1)[0] for line in lines]
    predictions = [{"text": line["pred_response"]} for line in lines]
    references = [{"id": key, "texts": answers[key]} for key in ids]
    scores = compute("scanqa", predictions, references, variant="leo", meteor=False)
    truth = expected["scanqa"]
    assert scores["em"] == close(100 * truth["EM"])
    assert scores["cider"] == close(truth["CIDER"])
    assert scores["rouge-l"] == close(truth["Rouge"])
    assert [scores[f"bleu-{order}"] for order in (1, 2, 3, 4)] == close(truth["BLEU"])
    leo = expected["scanqa_NOT_OFFICIAL_leo_rule"]
    assert scores["leo/em"] == close(100 * leo["em_after_clean_answer"])
    assert scores["leo/refined-em"] == close(100 * leo["refined_em"])


def test_sqa3d(golden_lines, expected):
    lines = golden_lines("sqa3d")
    scores = compute(
        "sqa3d",
        [{"text": line["pred_response"]} for line in lines],
        [{"texts": [line["gt_response"]], "question_type": line["question_type"]} for line in lines],
    )
    for kind, value in expected["sqa3d"].items():
        assert scores["em" if kind == "all" else f"{kind}/em"] == close(value), kind


def test_sqa3d_rules(golden_json):
    rules = golden_json("metrics/sqa3d_rules.json")
    assert {case["in"]: clean_answer(case["in"]) for case in rules["clean_answer"]} == {
        case["in"]: case["out"] for case in rules["clean_answer"]
    }
    for case in rules["question_type"]:
        question, kind = (list(case.values()))[:2]
        assert question_type(question, protocol="paper") == kind, question
