"""Metrics as `evaluate` modules: what they score, where the two protocols part, and their bands."""

import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

from trainer.evaluation.metrics import METRICS, load_metric, ngrams
from trainer.evaluation.metrics.answers import (
    clean_answer,
    normalise_answer,
    question_type,
    read_number,
    read_option,
    refined_match,
    relative_accuracy,
)
from trainer.evaluation.metrics.boxes import box_iou, choose_object, choose_objects, matched_f1
from trainer.evaluation.metrics.ngrams import has_java, ngram_scores, ptb_tokenise

REPOSITORY = Path(__file__).resolve().parents[4]
UNIT = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def moved(x):
    return [x, *UNIT[1:]]


def compute(name, pairs, **options):
    predictions, references = zip(*pairs, strict=True)
    references = [{"scene_id": f"scene{index // 2}", **row} for index, row in enumerate(references)]
    return load_metric(name).compute(predictions=list(predictions), references=references, **options)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_loads_by_its_path_and_says_what_it_takes(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    metric = evaluate.load(f"trainer/evaluation/metrics/{name}")
    assert "scene_id" in metric.features["references"]
    assert len(metric.description) > 100 and metric.citation
    with pytest.raises(ValueError, match="There is nothing to score"):
        metric.compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="There is no metric 'bleu'"):
        load_metric("bleu")


def test_the_protocol_must_exist():
    pair = ({"box": UNIT}, {"box": UNIT, "question_type": "unique"})
    with pytest.raises(ValueError, match='`protocol` must be "clean" or "paper"'):
        compute("scanrefer", [pair], protocol="original")


def test_scanrefer_counts_overlaps_by_type():
    third, two_thirds = moved(0.5), moved(0.2)  # overlaps of 1/3 and 2/3
    pairs = [
        ({"box": two_thirds}, {"box": UNIT, "question_type": "unique"}),
        ({"box": third}, {"box": UNIT, "question_type": "multiple"}),
        ({"box": []}, {"box": UNIT, "question_type": "multiple"}),
        ({"box": moved(2.0)}, {"box": UNIT, "question_type": "multiple"}),
    ]
    scores = compute("scanrefer", pairs)
    assert (scores["acc@0.25"], scores["acc@0.5"]) == (50, 25)
    assert (scores["unique/acc@0.5"], scores["multiple/acc@0.5"]) == (100, 0)
    assert scores["multiple/acc@0.25"] == pytest.approx(100 / 3)
    assert scores["counts"]["multiple/acc@0.25"] == 3


def test_an_overlap_of_exactly_one_half_counts_in_clean_only():
    half = [0.0, 0.0, 0.0, 1.0, 1.0, 2.0]
    pair = ({"box": half}, {"box": UNIT, "question_type": "unique"})
    assert compute("scanrefer", [pair], protocol="clean")["acc@0.5"] == 100
    assert compute("scanrefer", [pair], protocol="paper")["acc@0.5"] == 0
    negative = [0.0, 0.0, 0.0, 1.0, -1.0, 1.0]
    assert box_iou([negative], [UNIT], protocol="paper")[0, 0] == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="negative size"):
        box_iou([negative], [UNIT])
    flat = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert box_iou([flat], [flat])[0, 0] == 0
    assert box_iou(np.zeros((0, 6)), [UNIT]).shape == (0, 1)
    for wrong in ([UNIT[:5]], [[np.nan, *UNIT[1:]]]):
        with pytest.raises(ValueError, match=r"finite \(N, 6\)"):
            box_iou(wrong, [UNIT])


@pytest.mark.parametrize("limit", [0.25, 0.5])
def test_whether_an_overlap_of_exactly_the_threshold_counts_is_no_matter_of_rounding(limit):
    """Cubes that are moved by this share of their side overlap by the threshold, but for rounding."""
    rng = np.random.default_rng(0)
    shift = (1 - limit) / (1 + limit)
    sides, centres, axes = rng.uniform(0.1, 5, 200), rng.uniform(-10, 10, (200, 3)), rng.integers(0, 3, 200)
    true = np.concatenate([centres, np.repeat(sides[:, None], 3, axis=1)], axis=1)
    for factor, counts in ((1, True), (1 + 1e-4, False)):
        found = true.copy()
        found[range(200), axes] += factor * shift * sides
        boxes = [(a.tolist(), b.tolist()) for a, b in zip(found, true, strict=True)]
        refer = [({"box": a}, {"box": b, "question_type": "unique"}) for a, b in boxes]
        refer3d = [({"boxes": [a]}, {"boxes": [b], "question_type": "st_w_d"}) for a, b in boxes]
        nr3d = [({"box": a}, {"box": b, "question_type": "easy_view-dep"}) for a, b in boxes]
        caption = [
            ({"text": "a chair", "iou": box_iou([a], [b])[0, 0]}, {"texts": ["a chair", "one chair"]})
            for a, b in boxes
        ]
        expected = 100 * counts
        assert compute("scanrefer", refer)[f"acc@{limit}"] == expected
        assert compute("nr3d", nr3d)[f"acc@{limit}"] == expected
        assert compute("multi3drefer", refer3d)[f"f1@{limit}"] == expected
        assert compute("scan2cap", caption, meteor=False)[f"rouge-l@{limit}"] == pytest.approx(expected)


def test_nr3d_reads_its_misspelt_type():
    pairs = [
        ({"box": UNIT}, {"box": UNIT, "question_type": "easy_vide-indep"}),
        ({"box": moved(3)}, {"box": UNIT, "question_type": "hard_view-dep"}),
    ]
    scores = compute("nr3d", pairs)
    assert [scores[f"{kind}/acc@0.5"] for kind in ("easy", "hard", "view-indep", "view-dep")] == [100, 0, 100, 0]


def test_sets_of_boxes_are_matched_one_to_one():
    assert matched_f1([], [], 0.5) == 1
    assert matched_f1([UNIT], [], 0.5) == matched_f1([], [UNIT], 0.5) == 0
    assert matched_f1([UNIT, UNIT], [UNIT], 0.5) == pytest.approx(2 / 3)
    pair = ({"boxes": [UNIT]}, {"boxes": [UNIT, moved(5)], "question_type": "mt"})
    assert compute("multi3drefer", [pair])["mt/f1@0.5"] == pytest.approx(200 / 3)


def test_clean_matches_for_most_hits_and_paper_for_most_overlap():
    rng = np.random.default_rng(0)
    gains = 0
    for _ in range(200):
        found, true = ([moved(x) for x in rng.uniform(0, 1.5, 4)] for _ in range(2))
        paper, clean = (matched_f1(found, true, 0.5, protocol=protocol) for protocol in ("paper", "clean"))
        assert clean >= paper - 1e-9
        gains += clean > paper
    assert gains > 0


def test_objects_are_chosen_until_the_threshold_is_reached():
    assert choose_objects([0.1, 0.2, 0.9]) == []
    assert choose_objects([0.9, 0.1, -0.5]) == [0]
    assert choose_objects([0.5, 0.5, 0.5, 0.5, -1.0]) == [0, 1]
    assert choose_objects([0.9, 0.1, -0.5], threshold=0.9999999) == [0, 1]
    # The mass of "no such object" makes the original take one more.
    scores = [0.50, 0.45, 0.40, 0.495]
    assert len(choose_objects(scores, protocol="paper")) > len(choose_objects(scores, protocol="clean"))
    assert choose_objects([0.3]) == [] and choose_object([0.3]) is None
    assert choose_object([0.1, 0.3, 0.9]) == 1


def test_captions_without_a_box_count_nothing_in_clean():
    texts = ["the red chair is beside the table", "a blue lamp stands in the corner", "this is a white bed"]
    said = [{"text": texts[0], "iou": 0.3}, {"text": texts[1], "iou": 0.9}, {"text": "", "iou": 0.0}]
    pairs = list(zip(said, [{"texts": [text]} for text in texts], strict=True))
    clean = compute("scan2cap", pairs, meteor=False)
    paper = compute("scan2cap", pairs, meteor=False, protocol="paper")
    assert clean["rouge-l"] == pytest.approx(200 / 3)
    assert clean["rouge-l@0.25"] == pytest.approx(200 / 3) and clean["rouge-l@0.5"] == pytest.approx(100 / 3)
    assert clean["cider@0.5"] < clean["cider@0.25"]
    assert clean["bleu-4@0.5"] < clean["bleu-4@0.25"]
    assert paper["rouge-l"] > clean["rouge-l"], "paper gives an empty caption the marks at its ends"
    assert "cider@0.5" not in paper
    with pytest.raises(ValueError, match='"clean" protocol gates by `iou`'):
        compute("scan2cap", [({"text": "a", "iou": None}, {"texts": ["a"]})], meteor=False)
    with pytest.raises(ValueError, match='has the `variant` "ptb"'):
        compute("scan2cap", pairs, variant="leo", meteor=False)


def test_scanqa_compares_raw_text_in_paper_and_normalised_text_in_clean():
    pairs = [
        ({"text": "Two chairs."}, {"id": "a", "texts": ["2 chairs"]}),
        ({"text": "brown"}, {"id": "b", "texts": ["dark brown", "brown"]}),
        ({"text": ""}, {"id": "c", "texts": ["table"]}),
        ({"text": "the left"}, {"id": "d", "texts": ["on the left side"]}),
    ]
    clean = compute("scanqa", pairs, variant="leo", meteor=False)
    paper = compute("scanqa", pairs, variant="leo", meteor=False, protocol="paper")
    assert (clean["em"], paper["em"]) == (50, 25)
    # LEO stops at "dark brown", which holds "brown", and takes an empty answer for right.
    assert (clean["leo/em"], paper["leo/em"]) == (50, 25)
    assert (clean["leo/refined-em"], paper["leo/refined-em"]) == (75, 100)
    twice = [*pairs, ({"text": "x"}, {"id": "a", "texts": ["2 chairs"]})]
    with pytest.raises(ValueError, match="1 ids come more than once"):
        compute("scanqa", twice, meteor=False)
    paper = compute("scanqa", twice, meteor=False, protocol="paper")
    assert (paper["counts"]["em"], paper["counts"]["cider"]) == (5, 4)


def test_sqa3d_knows_its_types_and_all_numbers():
    pairs = [
        ({"text": "21"}, {"texts": ["twenty-one"], "question_type": "how"}),
        ({"text": "Right."}, {"texts": ["rigth", "right"], "question_type": "which"}),
        ({"text": "the tv"}, {"texts": ["TV"], "question_type": "what"}),
        ({"text": ""}, {"texts": ["yes"], "question_type": "is"}),
    ]
    clean, paper = (compute("sqa3d", pairs, variant="leo", protocol=name) for name in ("clean", "paper"))
    assert (clean["em"], paper["em"]) == (75, 50)
    assert (clean["how/em"], paper["how/em"]) == (100, 0)
    assert (clean["leo/refined-em"], paper["leo/refined-em"]) == (50, 75)


def test_answers_are_cleaned_and_read():
    assert clean_answer("  A Chair  on the left. ") == "chair on left"
    assert normalise_answer("The the TV, 12.5 m") == "tv 12.5 m"
    assert normalise_answer("let me see") == "let me see"
    assert refined_match("", ["table"], protocol="paper") == (False, True)
    assert refined_match("", ["table"]) == (False, False)
    assert question_type("canvas or poster?", protocol="paper") == "can"
    assert question_type("canvas or poster?") == "others"
    assert question_type("Which is closer?") == "which"
    for text in ("B", "B.", "(B) left", "b) left", "Option B: left", "The answer is B"):
        assert read_option(text) == "b"
    assert read_option("B) left", protocol="paper") == "b)"
    assert (read_number("about 1,250.5 cm"), read_number("three"), read_number("many")) == (1250.5, 3.0, None)
    assert (read_number("4.", protocol="paper"), read_number("about 4", protocol="paper")) == (4.0, None)


def test_spatial_answers_are_averaged_over_tasks():
    pairs = [
        ({"text": "A"}, {"text": "A", "question_type": "object_rel_direction_easy"}),
        ({"text": "A"}, {"text": "B", "question_type": "object_rel_direction_hard"}),
        ({"text": "A"}, {"text": "B", "question_type": "object_rel_direction_hard"}),
        ({"text": "4"}, {"text": "4", "question_type": "object_counting"}),
        ({"text": "many"}, {"text": "4", "question_type": "object_size_estimation"}),
    ]
    scores = compute("vsibench", pairs)
    assert scores["macro"] == pytest.approx((50 + 100 + 0) / 3)
    assert scores["micro"] == pytest.approx(40)
    assert scores["object_rel_direction_hard/score"] == 0
    assert relative_accuracy(2.0, 4.0) == pytest.approx(0.1)
    assert relative_accuracy(4.4, 4.0) == pytest.approx(0.9)
    assert (relative_accuracy(0.0, 0.0), relative_accuracy(0.1, 0.0)) == (1, 0)
    assert relative_accuracy(0.0, 0.0, protocol="paper") == 0


def test_types_of_revsi_are_averaged_within_their_task():
    pairs = [
        ({"text": "B"}, {"text": "B", "question_type": "object_rel_distance_closest"}),
        ({"text": "A"}, {"text": "B", "question_type": "object_rel_distance_farthest"}),
        ({"text": "A"}, {"text": "B", "question_type": "object_rel_distance_farthest"}),
        ({"text": "4"}, {"text": "4", "question_type": "object_counting_single"}),
        ({"text": "2"}, {"text": "4", "question_type": "object_counting_multiple"}),
        ({"text": " C."}, {"text": "C", "question_type": "route_planning"}),
    ]
    for protocol in ("clean", "paper"):
        scores = compute("revsi", pairs, protocol=protocol)
        assert scores["macro"] == pytest.approx((50 + 55 + 100) / 3)
        assert scores["micro"] == pytest.approx((1 + 0 + 0 + 1 + 0.1 + 1) / 6 * 100)
    with pytest.raises(ValueError, match="question_type.*object_counting_single"):
        compute("revsi", [({"text": "4"}, {"text": "4", "question_type": "object_counting"})])


def test_corpus_bleu_has_a_band_of_its_own():
    texts = ["a red chair near the window", "two lamps", "the white door is closed", "a bed"]
    pairs = [
        ({"text": text if index % 3 else "a chair"}, {"id": str(index), "texts": [text]})
        for index, text in enumerate(texts * 3)
    ]
    scores = compute("scanqa", pairs, meteor=False)
    low, high = scores["bands"]["bleu-1"]
    assert low < scores["bleu-1"] < high


@pytest.mark.slow
@pytest.mark.skipif(not has_java(), reason="METEOR and the PTB tokeniser need Java")
def test_java_scores():
    pairs = [
        ({"text": "A red chair, near the window."}, {"id": "a", "texts": ["a red chair near the window"]}),
        ({"text": "lamp"}, {"id": "b", "texts": ["two tables"]}),
    ]
    scores = compute("scanqa", pairs, variant="ptb", protocol="paper")
    assert scores["rouge-l"] == pytest.approx(50)
    assert 0 < scores["meteor"] <= 100


@pytest.mark.skipif(not has_java(), reason="the PTB tokeniser needs Java")
@pytest.mark.parametrize("last", ["", "..."])
def test_every_text_keeps_its_line(last):
    """White space that ends a line for Java, or for Python, shifted all texts behind it."""
    ends = [chr(code) for code in range(0x2030) if chr(code).isspace()] + ["\r\n", "\u200b\u2028", "\0"]
    texts = [f"A red{end}chair, {index}." for index, end in enumerate(ends)] + ["", "?", " ", "It's a lamp.", last]
    expected = [f"a red chair {index}" for index in range(len(ends))] + ["", "", "", "it 's a lamp", ""]
    assert ptb_tokenise(texts) == expected


@pytest.mark.skipif(not has_java(), reason="the PTB tokeniser needs Java")
@pytest.mark.parametrize("end", ["\r", "\u2028", "\x0b", "\f"])
def test_right_answers_are_right_whatever_ends_a_line_in_them(end):
    texts = [
        "a red chair near the window",
        f"two lamps{end}by the bed",
        "the white door is closed",
        "a tall green bed",
    ]
    pairs = [({"text": text}, {"id": str(index), "texts": [text]}) for index, text in enumerate(texts)]
    scores = compute("scanqa", pairs, variant="ptb", meteor=False)
    assert scores["cider"] == pytest.approx(1000) and scores["bleu-4"] == pytest.approx(100)


def test_lines_of_the_tokeniser_are_counted(monkeypatch):
    monkeypatch.setattr(ngrams, "has_java", lambda: True)
    done = subprocess.CompletedProcess([], 0, stdout="a red\nchair\n", stderr="")
    monkeypatch.setattr(ngrams.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match=r"gave 2 lines for 1 texts \(exit status 0\)"):
        ptb_tokenise(["a red chair"])
    done.returncode = 1
    with pytest.raises(RuntimeError, match="exit status 1"):
        ptb_tokenise(["a red", "chair"])


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(ImportError, match=r'`pycocoevalcap`: pip install -e "\.\[evaluation\]"\.'):
        ngram_scores(["a chair"], [["a chair"]])
