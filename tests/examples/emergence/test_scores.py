"""Scores of answers."""

import pytest
import torch

from examples.emergence import models, questions, scores
from examples.emergence.recipe import Arm
from processing.rooms import load_rooms
from processing.rooms.samples import room_samples
from trainer import IDE3DDataCollator
from trainer.nano.lessons import RegionReadingCollator
from trainer.session.region_reading import answer_from_regions


def test_answers_from_regions_are_those_of_a_masked_video(write_study):
    """The first word of each answer is the one that the training model, the video masked, finds most likely."""
    _, study = write_study()
    processor, grid = models.build_processor(study), models.study_grid(study)
    model = models.build_model(study, Arm(), 3, processor).eval()
    rows = load_rooms("validation", 7, image_size=32, num_frames=2)
    samples = []
    for index in range(3):
        row = questions.first_view(rows[index])
        samples += room_samples(row, grid, reference="region", types=("distance", "closer", "colour"))
    answers = answer_from_regions(model, processor, samples, max_new_tokens=1)
    batch = RegionReadingCollator(IDE3DDataCollator(processor))(samples)
    with torch.no_grad():
        logits = model(**batch).logits
    for index, own in enumerate(answers):
        for place, answer in enumerate(own):
            is_answer = (batch["segment_ids"][index] == place + 1) & (batch["labels"][index] != -100)
            chosen = logits[index, int(is_answer.nonzero()[0]) - 1].argmax()
            assert processor.decode([int(chosen)], skip_special_tokens=True) == answer


def test_judged_by_distance():
    question = {"type": "position", "value": [0.0, 0.0, 2.0], "answer": "x 0.0 y 0.0 z 2.0"}
    assert scores.judge(question, "x 0.0 y 0.3 z 2.0") == {
        "position_25": False,
        "position_50": True,
        "position_100": True,
    }
    assert not any(scores.judge(question, "x 0.0 y").values())
    assert scores.judge({"type": "colour", "value": [], "answer": "red"}, "red") == {"colour": True}


def test_hits_are_a_digit_a_room():
    sums = scores.count_hits([[{"colour": True}, {"colour": False}], [], [{"colour": True}]])
    assert sums["hits"]["colour"] == "101" and sums["counts"]["colour"] == "201"
    with pytest.raises(ValueError, match="more than nine"):
        scores.count_hits([[{"colour": True}] * 10])
