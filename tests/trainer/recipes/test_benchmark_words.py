"""Questions of rooms in prompts of benchmarks: the words that an evaluation shows, about the same objects."""

import numpy as np
import pytest

from processing.benchmarks.prompts import build_prompt
from processing.rooms import load_rooms
from processing.rooms.lessons import find_mentions
from processing.token_grid import TokenGrid
from trainer.recipes import DataArguments
from trainer.recipes.benchmark_words import say_as_benchmark
from trainer.recipes.lessons import draw_lessons, draw_validation

LAST_WORDS = ("Answer the question simply.", "Answer the question using a single word or phrase.")
FIRST_WORDS = "Identify the object according to the following description.\n"
NONE_OR_SEVERAL = "There may be no corresponding object, or there may be one or more objects."


@pytest.fixture(scope="module")
def rooms():
    return [dict(row) for row in load_rooms("validation", 6, image_size=64, num_frames=2, num_proc=1)]


def questions(rooms):
    return [
        (row, q) for row in rooms for q in row["questions"] if q["reference"] == "word" and q["type"] != "description"
    ]


def said(question, row, share=1.0, seeds=range(8)):
    return {say_as_benchmark(question, row, np.random.default_rng(seed), share=share) for seed in seeds}


def test_questions_are_those_of_scanqa_and_sqa3d(rooms):
    asked = [(row, q) for row, q in questions(rooms) if q["type"] != "grounding"]
    ends = set()
    for row, question in asked:
        for text in said(question, row):
            assert question["question"] in text and text.endswith(LAST_WORDS)
            ends.add(text.splitlines()[-1].split(question["question"])[1].strip())
    assert ends == set(LAST_WORDS)
    row, question = asked[0]
    assert build_prompt("scanqa", question) in said(question, row)


def test_requests_are_those_of_scanrefer_and_multi3drefer(rooms):
    asked = [(row, q) for row, q in questions(rooms) if q["type"] == "grounding"]
    assert {len(q["target_objects"]) for _, q in asked} >= {0, 1, 2}
    for row, question in asked:
        kinds = [thing["category"] for thing in row["objects"]] + ["toilet"]
        named = find_mentions(question["question"], row["objects"], kinds)
        texts = said(question, row)
        assert all(text.startswith(FIRST_WORDS) for text in texts)
        if len(question["target_objects"]) != 1:
            assert all(text.endswith(NONE_OR_SEVERAL) for text in texts)
        else:
            assert {text.endswith(NONE_OR_SEVERAL) for text in texts} == {True, False}
        for text in texts:  # a description may say where it stands too
            assert find_mentions(text, row["objects"], kinds)[: len(named)] == named


def test_the_share_counts_questions(rooms):
    asked = questions(rooms)
    rng = np.random.default_rng(0)
    texts = [say_as_benchmark(q, row, rng, share=0.25) for _ in range(8) for row, q in asked]
    share = np.mean([text.startswith(FIRST_WORDS) or text.endswith(LAST_WORDS) for text in texts])
    assert share == pytest.approx(0.25, abs=0.04)
    assert not any(FIRST_WORDS in text or text.endswith(LAST_WORDS) for row, q in asked for text in said(q, row, 0.0))


def test_a_recipe_asks_so_in_training_and_validation(rooms):
    data = DataArguments(lessons=["view=1", "word=1"], benchmark_share=1.0, max_questions=4)
    grid = TokenGrid(64, 8, 1)
    samples = [*draw_validation(rooms[:2], data, grid), draw_lessons(rooms, data, grid)[0]]
    texts = [question["question"] for sample in samples for question in sample["questions"]]
    assert texts and all(text.startswith(FIRST_WORDS) or text.endswith(LAST_WORDS) for text in texts)
    plain = draw_validation(rooms[:2], DataArguments(lessons=["view=1"], max_questions=4), grid)
    assert not any(q["question"].startswith(FIRST_WORDS) for sample in plain for q in sample["questions"])
