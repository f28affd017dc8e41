"""Scores on rooms: what counts as right, that bands are over rooms, and that baselines stand beside."""

import numpy as np
import pytest
import torch
from training_samples import build_model

from processing.rooms import load_rooms
from processing.rooms.questions.baselines import Baselines
from trainer.evaluation.rooms import JudgedQuestion, format_room_table, judge_room, judge_rooms, tabulate
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor


@pytest.fixture(scope="module")
def rows():
    return list(load_rooms("validation", 3, image_size=32, num_frames=2, num_proc=1))


@pytest.fixture(scope="module")
def processor(rows):
    texts = [text for row in rows for q in row["questions"] for text in (q["question"], q["answer"])]
    return build_nano_processor(texts, image_size=32, num_frames=2)


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return build_nano_model(build_nano_config(processor, hidden_size=32)).eval()


def judged(kind: str, scene: str, is_right: bool, baseline: bool = False, value=()) -> JudgedQuestion:
    question = {"type": kind, "reference": "word", "value": list(value)}
    return JudgedQuestion(scene, question, "", is_right, {"majority": False, "text": baseline})


class TestJudge:
    def test_every_question_is_asked_once(self, model, processor, rows):
        entries = judge_rooms(model, processor, rows, Baselines(rows))
        assert len(entries) == sum(len(row["questions"]) for row in rows)
        assert {entry.scene_id for entry in entries} == {row["scene_id"] for row in rows}

    def test_a_model_that_knows_the_truth_is_right(self, model, processor, rows, monkeypatch):
        truth = {q["question"]: q["answer"] for q in rows[0]["questions"] if q["reference"] == "word"}

        def ask(self, questions, regions=None, **_):
            return [truth[question] for question in questions]

        def ground(self, texts, masks, **_):
            request = next(q for q in rows[0]["questions"] if q["question"] == texts[0])
            ids = [thing["id"] for thing in rows[0]["objects"]]
            scores = torch.zeros(1, len(masks) + 1)
            pictures = np.stack([np.asarray(image) for image in rows[0]["instance_ids"]])
            seen = [n for n in ids if (pictures == n).any()][: len(masks)]
            found = [n in request["target_objects"] for n in seen]
            scores[0, found.index(True) if any(found) else -1] = 1
            return scores

        monkeypatch.setattr("trainer.evaluation.rooms.SceneSession.ask", ask)
        monkeypatch.setattr("trainer.evaluation.rooms.SceneSession.ground", ground)
        entries = judge_room(model, processor, rows[0], Baselines(rows), "word")
        talk = [entry for entry in entries if entry.question["type"] != "grounding"]
        assert talk and all(entry.is_right for entry in talk)
        assert all(entry.question["reference"] == "word" for entry in entries)

    def test_a_model_in_training_is_refused(self, processor, rows):
        with pytest.raises(ValueError, match="training mode"):
            judge_room(build_model().train(), processor, rows[0], Baselines(rows))


class TestTable:
    def test_accuracy_lead_and_best_baseline(self):
        entries = [judged("colour", f"s{k % 10}", k % 4 != 0, baseline=k % 4 == 1) for k in range(40)]
        (row,) = tabulate(entries)
        assert (row["type"], row["n"], row["best"]) == ("colour", 40, "text")
        assert row["model"] == 0.75 and row["text"] == 0.25 and row["lead"] == 0.5 and row["mean_row"] is None
        assert row["band"][0] <= 0.75 <= row["band"][1]

    def test_bands_are_over_rooms(self):
        """Forty questions of eight rooms say less than forty of forty, and those of two say nothing."""
        few = tabulate([judged("colour", f"s{k % 8}", k % 2 == 0) for k in range(40)])[0]["band"]
        many = tabulate([judged("colour", f"s{k}", k % 2 == 0) for k in range(40)])[0]["band"]
        assert few[1] - few[0] > many[1] - many[0] > 0
        two = tabulate([judged("colour", f"s{k % 2}", True) for k in range(40)])
        assert two[0]["band"] == two[0]["lead_band"] == [None, None]
        assert "  too few |" in format_room_table(two) and format_room_table(two).endswith("~ |")

    def test_one_object_s_size_is_its_height(self):
        table = tabulate([judged("size", "a", True), judged("size", "b", True, value=[0.4])])
        assert [row["type"] for row in table] == ["height", "size"]

    def test_a_lead_that_may_be_none_is_marked(self):
        sure = [judged("colour", f"s{k}", True) for k in range(20)]
        open_ = [judged("size", f"s{k}", k % 2 == 0, baseline=k % 2 == 1) for k in range(20)]
        lines = format_room_table(tabulate(sure + open_)).splitlines()
        assert lines[2].endswith("| +100.0 |") and lines[3].endswith("~ |")

    def test_nothing_judged(self):
        assert tabulate([]) == []
