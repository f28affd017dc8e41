"""Questions of the study: boxes in words, questions that need no depth, answers that are off."""

import numpy as np
import pytest

from examples.emergence import models, questions
from processing.rooms import load_rooms


def test_boxes_are_said_by_the_words_of_the_lesson():
    masks = np.zeros((2, 1, 8, 8), bool)
    masks[0, 0, 2:5, 6] = True
    asked = [
        {"question": "Which is closer, <ground> or <ground>?", "answer": "the first", "region_objects": [7, 3]},
        {"question": "How far is <ground>?", "answer": "2.0 meters", "region_objects": [3]},
    ]
    sample = {"region_masks": masks, "region_references": [1, 0, 0], "questions": asked, "messages": [[], []]}
    said = questions.say_boxes(sample)
    # Column 6 of 8 is the eighth tenth; rows 2 to 4 are the third and the sixth. The empty region has no place.
    texts = ["Which is closer, <ground> or <ground> h h m p?", "How far is <ground> h h m p?"]
    assert [question["question"] for question in said["questions"]] == texts
    assert [chat[0]["content"][1]["text"] for chat in said["messages"]] == texts
    assert [chat[1]["content"][0]["text"] for chat in said["messages"]] == ["the first", "2.0 meters"]
    assert "messages" not in questions.say_boxes({k: v for k, v in sample.items() if k != "messages"})


def test_flat_questions_are_answered_by_the_mask(write_study):
    """Every middle and extent, and nothing that asks for depth, in the order in which regions are pointed at."""
    _, study = write_study()
    grid = models.study_grid(study)
    rows = load_rooms("train", 8, image_size=32, num_frames=2)
    samples = questions.sample_flat_questions([rows[0], rows[1]], grid, 3)
    assert samples
    for sample in samples:
        references = iter(sample["region_references"])
        for question, chat in zip(sample["questions"], sample["messages"], strict=True):
            own = [next(references) for _ in question["region_objects"]]
            assert question["type"] in ("flat", "direction", "colour")
            assert chat[0]["content"][1]["text"].count("<ground>") == len(own)
            if question["type"] != "flat":
                assert [sample["object_ids"][at] for at in own] == question["region_objects"]
                continue
            y, x = sample["region_masks"][own[0], 0].nonzero()
            wanted = (x.max() - x.min() + 1, y.max() - y.min() + 1)
            if question["question"] == questions.MIDDLE_QUESTION:
                wanted = (x.mean() + 0.5, y.mean() + 0.5)
            numbers = [float(word) for word in chat[1]["content"][0]["text"].split()[1::2]]
            np.testing.assert_allclose(numbers, wanted, atol=0.051)
        assert next(references, None) is None


def test_jitter_moves_lengths_and_nothing_else():
    asked = [
        {"type": "position", "question": "Where?", "answer": "x 0.0 y 0.0 z 3.0", "value": [0.0, 0.0, 3.0]},
        {"type": "distance", "question": "How far?", "answer": "0.3 meters", "value": [0.3]},
        {"type": "colour", "question": "Which?", "answer": "red", "value": None},
    ]
    rng, answers = np.random.default_rng(0), []
    for _ in range(300):
        chats = questions.jitter_answers({"questions": asked}, 0.2, rng)["messages"]
        answers.append([chat[1]["content"][0]["text"] for chat in chats])
    depths = np.array([float(answer[0].split()[-1]) for answer in answers])
    lengths = np.array([float(answer[1].split()[0]) for answer in answers])
    assert depths.mean() == pytest.approx(3.0, abs=0.05) and depths.std() == pytest.approx(0.2, abs=0.04)
    assert lengths.min() == 0.1 and {answer[2] for answer in answers} == {"red"}
