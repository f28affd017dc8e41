"""The metric of boxes in words, by hand-computed values."""

import json
import math

import numpy as np
import pytest

from processing.boxes_in_words import write_boxes
from processing.oriented_boxes import box_in_camera
from trainer.evaluation.metrics import load_metric

# Two cameras a metre above the floor: one looks along the world's y, one along its x.
ALONG_Y = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1]]
ALONG_X = [[0, 0, 1, -1], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]]
POSES = [ALONG_Y, ALONG_X]
CUBE = [0, 3, 1, 1, 1, 1, 0]


def said(*boxes, frame=0, numbers="digits"):
    return write_boxes([box_in_camera(box, POSES[frame], frame) for box in boxes], numbers=numbers)


def compute(*pairs, poses=POSES, types=None, **options):
    references = [
        {
            "scene_id": f"scene{index}",
            "boxes": boxes,
            "camera_to_world": poses,
            "question_type": types[index] if types else "one",
        }
        for index, (_, boxes) in enumerate(pairs)
    ]
    predictions = [{"text": text} for text, _ in pairs]
    return load_metric("boxes_in_words").compute(predictions=predictions, references=references, **options)


class TestOneObject:
    @pytest.mark.parametrize("frame", [0, 1])
    def test_the_true_box_in_any_frame(self, frame):
        scores = compute((said(CUBE, frame=frame), [CUBE]))
        for name in ("acc@0.25", "acc@0.5", "rotated_acc@0.25", "rotated_acc@0.5", "f1@0.25", "f1@0.5"):
            assert scores[name] == scores[f"one/{name}"] == 100
        assert scores["center_error"] == pytest.approx(0, abs=1e-9) and scores["unparsable"] == 0

    def test_by_hand(self):
        """Moved by half its side a cube overlaps by 1 / 3, by a fifth of it by 2 / 3."""
        pairs = [
            (said([0.5, 3, 1, 1, 1, 1, 0]), [CUBE]),
            (said([0, 3.2, 1, 1, 1, 1, 0]), [CUBE]),
            (said([0, 3, 3, 1, 1, 1, 0]), [CUBE]),
            (said(), [CUBE]),
        ]
        scores = compute(*pairs)
        assert (scores["acc@0.25"], scores["acc@0.5"], scores["f1@0.25"], scores["f1@0.5"]) == (50, 25, 50, 25)
        assert scores["center_error"] == pytest.approx((0.5 + 0.2 + 2) / 3)
        assert scores["counts"]["center_error"] == 3 and scores["counts"]["acc@0.25"] == 4

    def test_the_frame_that_is_named_counts(self):
        """The same words in another camera are another place."""
        wrong = said(CUBE).replace('"frame":0', '"frame":1')
        scores = compute((wrong, [CUBE]))
        # 3 m ahead of the second camera is (2, 0, 1).
        assert scores["acc@0.25"] == 0 and scores["center_error"] == pytest.approx(math.hypot(2, 3))

    def test_turned_boxes(self):
        """A long box said at right angles to the true one: the footprints share a square of 1 of 4 + 4 - 1."""
        long, across = [0, 3, 1, 4, 1, 1, 0], [0, 3, 1, 1, 4, 1, 0]
        assert compute((said(across), [long]))["rotated_acc@0.25"] == 0
        # At 45 degrees the box around the answer is a square of side 5 / sqrt 2, which overlaps by
        # 5 / sqrt 2 / (12.5 + 4 - 5 / sqrt 2) = 0.27. The boxes themselves overlap by sqrt 2 / (8 - sqrt 2) = 0.21.
        scores = compute((said([0, 3, 1, 4, 1, 1, math.pi / 4]), [long]))
        assert (scores["acc@0.25"], scores["rotated_acc@0.25"]) == (100, 0)
        turned = [0, 3, 1, 4, 1, 1, math.pi / 6]
        scores = compute((said(turned), [turned]))
        assert (scores["rotated_acc@0.5"], scores["acc@0.5"]) == (100, 100)

    def test_the_first_box_of_an_answer_counts(self):
        far = [0, 8, 1, 1, 1, 1, 0]
        assert compute((said(CUBE, far), [CUBE]))["acc@0.5"] == 100
        scores = compute((said(far, CUBE), [CUBE]))
        assert scores["acc@0.5"] == 0 and scores["f1@0.5"] == pytest.approx(100 * 2 / 3)


class TestSeveralAndNone:
    def test_f1(self):
        other = [2, 3, 1, 1, 1, 1, 0]
        pairs = [
            (said(CUBE, other), [other, CUBE]),  # 1, in any order
            (said(CUBE), [other, CUBE]),  # 2 / 3
            (said(), []),  # 1
            (said(CUBE), []),  # 0
        ]
        scores = compute(*pairs, types=["several", "several", "none", "none"])
        assert scores["f1@0.5"] == pytest.approx(100 * (1 + 2 / 3 + 1 + 0) / 4)
        assert scores["several/f1@0.25"] == pytest.approx(100 * 5 / 6) and scores["none/f1@0.25"] == 50
        # No question has one true box.
        assert "acc@0.25" not in scores and "center_error" not in scores

    @pytest.mark.parametrize(
        "text", ["", "no such object", "[{}]", '[{"frame":2,"center":[0,0,1],"size":[1,1,1],"yaw":0}]']
    )
    def test_what_cannot_be_parsed_is_counted_and_finds_nothing(self, text):
        scores = compute((text, [CUBE]), (text, []), (said(CUBE), [CUBE]), (said(), []))
        assert scores["unparsable"] == 50 and scores["acc@0.25"] == 50 and scores["f1@0.25"] == 50
        assert scores["counts"]["center_error"] == 1


class TestOptions:
    @pytest.mark.parametrize("numbers", ["bins", "tokens"])
    def test_ways_of_writing_numbers(self, numbers):
        scores = compute((said(CUBE, numbers=numbers), [CUBE]), numbers=numbers)
        assert scores["acc@0.5"] == 100 and scores["center_error"] <= 0.02 * math.sqrt(3) + 1e-9
        assert compute((said(CUBE, numbers="tokens"), [CUBE]))["unparsable"] == 100

    def test_refused(self):
        pair = (said(CUBE), [CUBE])
        with pytest.raises(ValueError, match="`numbers` must be one of"):
            compute(pair, numbers="roman")
        with pytest.raises(ValueError, match="the original has no boxes in words"):
            compute(pair, protocol="paper")
        with pytest.raises(ValueError, match=r"`references`\[0\]: `camera_to_world` must be a pose"):
            compute(pair, poses=np.eye(3).tolist())
        with pytest.raises(ValueError, match=r"`references`\[0\]: `camera_to_world` .*rigid motion"):
            compute(pair, poses=[np.diag([2.0, 2, 2, 1]).tolist()])
        with pytest.raises(ValueError, match=r"`references`\[0\]: `boxes` .*\(N, 7\)"):
            compute((said(CUBE), [CUBE[:6]]))
        with pytest.raises(TypeError, match=r"`predictions`\[0\]: `text` must be text"):
            compute((json.loads("[]"), [CUBE]))

    def test_bands_over_scenes(self):
        pairs = [(said([shift, 3, 1, 1, 1, 1, 0]), [CUBE]) for shift in (0, 0.2, 0.1, 0.9, 0.3, 0.7)]
        scores = compute(*pairs)
        low, high = scores["bands"]["center_error"]
        assert low < scores["center_error"] < high
        assert scores["bands"]["acc@0.25"][0] < scores["acc@0.25"]
