"""Questions in the style of VSI-Bench about a rendered room: all ten kinds, from its geometry; and of ReVSI."""

from itertools import permutations
from typing import Any

import numpy as np

from processing.benchmarks.export.annotations import RoomScene
from processing.rooms.questions.wording import plural

__all__ = ["revsi_records", "vsi_records"]

# Types of VSI-Bench whose questions ReVSI has too, and their names there.
_REVSI_NAMES = {
    "object_counting": "object_counting_single",
    "object_abs_distance": "object_abs_distance",
    "object_size_estimation": "object_size_estimation",
    "room_size_estimation": "room_size_estimation_single",
    "object_rel_distance": "object_rel_distance_closest",
    "object_rel_direction_medium": "object_rel_direction_forward_easy",
    "object_rel_direction_hard": "object_rel_direction_forward_hard",
    "route_planning": "route_planning",
}
_LETTERS = "ABCD"
_MIN_GAP = 0.15  # Metres between distances whose order is asked for.
_CLEAR_ANGLE = np.deg2rad(10)  # Least distance from the border between two answers.


def vsi_records(scene: RoomScene, floor_area: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return rows of the public file, `id` left to the caller.

    Args:
        scene: Room.
        floor_area: Square metres of the floor.
        rng: Generator that chooses the objects and the order of the options.
    """
    asker = _VsiAsker(scene, rng)
    name = scene.scene_id.split("/")[1]
    asked = [*asker.numbers(floor_area), *asker.order(), *asker.nearest(), *asker.directions(), *asker.route()]
    return [{"dataset": "scannet", "scene_name": name, **question} for question in asked]


def revsi_records(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the questions of VSI-Bench that ReVSI has too, as its rows."""
    return [
        {
            "dataset": record["dataset"],
            "scene_id": record["scene_name"],
            "num_frames": "32",
            **{name: record[name] for name in ("question", "ground_truth", "options")},
            "question_type": _REVSI_NAMES[record["question_type"]],
        }
        for record in records
        if record["question_type"] in _REVSI_NAMES
    ]


def _gap(one: dict, two: dict) -> float:
    """Return the distance between the nearest points of two boxes, metres."""
    between = np.abs(np.subtract(one["center"], two["center"])) - np.add(one["size"], two["size"]) / 2
    return float(np.linalg.norm(np.maximum(between, 0)))


class _VsiAsker:
    def __init__(self, scene: RoomScene, rng: np.random.Generator):
        self.scene, self.rng = scene, rng
        single = [thing for thing in scene.clear if scene.kinds[thing["category"]] == 1]
        self.single = [single[i] for i in rng.permutation(len(single))]

    def question(self, kind: str, text: str, truth: str, choices: list[str] | None = None) -> dict[str, Any]:
        options = None
        if choices is not None:
            choices = [choices[i] for i in self.rng.permutation(len(choices))]
            options = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=False)]
            truth = _LETTERS[choices.index(truth)]
        return {"question_type": kind, "question": text, "ground_truth": truth, "options": options}

    def numbers(self, floor_area: float):
        scene = self.scene
        counted = [kind for kind, number in scene.kinds.items() if number > 1]
        for kind in counted[:2]:
            same = [thing for thing in scene.objects if thing["category"] == kind]
            if all(thing in scene.clear for thing in same):
                text = f"How many {plural(kind)} are in this room?"
                yield self.question("object_counting", text, str(len(same)))
        for one, two in list(zip(self.single[::2], self.single[1::2], strict=False))[:2]:
            a, b, gap = one["category"], two["category"], _gap(one, two)
            if gap > 0.1:
                text = f"How far apart are the nearest points of the {a} and the {b}, in meters?"
                yield self.question("object_abs_distance", text, f"{gap:.1f}")
        for thing in self.single[:2]:
            text = f"How long is the longest side of the {thing['category']}, in centimeters?"
            yield self.question("object_size_estimation", text, str(round(100 * max(thing["size"]))))
        text = "What is the floor area of this room, in square meters?"
        yield self.question("room_size_estimation", text, f"{floor_area:.1f}")

    def order(self):
        first = self.scene.first_frame
        groups = {first[thing["id"]]: thing["category"] for thing in self.single}
        if len(groups) >= 3:
            kinds = [groups[frame] for frame in sorted(groups)][:3]
            choices = [", ".join(order) for order in permutations(kinds)]
            truth = choices[0]
            others = [choices[i] for i in 1 + self.rng.permutation(len(choices) - 1)[:3]]
            listed = ", ".join(sorted(kinds))
            text = f"In which order do these appear first in the video: {listed}?"
            yield self.question("obj_appearance_order", text, truth, [truth, *others])

    def nearest(self):
        for thing in self.single:
            others = [other for other in self.single if other is not thing][:4]
            gaps = sorted(_gap(thing, other) for other in others)
            if len(others) == 4 and gaps[1] - gaps[0] > _MIN_GAP:
                kinds = [other["category"] for other in others]
                text = f"Which of these is closest to the {thing['category']}: {', '.join(kinds)}?"
                truth = min(others, key=lambda other: _gap(thing, other))["category"]
                yield self.question("object_rel_distance", text, truth, kinds)
                return

    def directions(self):
        """Yield questions for the side of a third object, seen from one object towards another."""
        for level, borders, names in (
            ("easy", (0, 180), ("left", "right")),
            ("medium", (-135, 0, 135), ("left", "right", "back")),
            ("hard", (-90, 0, 90, 180), ("front-left", "front-right", "back-left", "back-right")),
        ):
            for stand, face, sought in self.triples():
                angle = self.angle(stand, face, sought)
                far = np.abs((np.deg2rad(borders) - angle + np.pi) % (2 * np.pi) - np.pi) > _CLEAR_ANGLE
                if far.all():
                    truth = _direction(level, angle)
                    text = (
                        f"If I stand by the {stand['category']} and face the {face['category']}, where is "
                        f"the {sought['category']}: {', '.join(names)}?"
                    )
                    yield self.question(f"object_rel_direction_{level}", text, truth, list(names))
                    break

    def route(self):
        for start, middle, goal in self.triples():
            # The turn at the middle, between the ways from the start to it and from it to the goal.
            ahead = np.subtract(middle["center"], start["center"])[:2]
            turn = self.signed_angle(ahead, np.subtract(goal["center"], middle["center"])[:2])
            if min(abs(abs(turn) - np.deg2rad(b)) for b in (0, 45, 135)) < _CLEAR_ANGLE or abs(turn) < np.pi / 4:
                continue
            truth = "Turn Back" if abs(turn) > np.deg2rad(135) else "Turn Left" if turn > 0 else "Turn Right"
            text = (
                f"A robot stands by the {start['category']} and faces the {middle['category']}. It wants to reach the "
                f"{goal['category']}: 1. go forward to the {middle['category']} 2. [fill in] 3. go forward to the "
                f"{goal['category']}. What stands in the gap?"
            )
            yield self.question("route_planning", text, truth, ["Turn Back", "Turn Left", "Turn Right"])
            return

    def triples(self):
        """Yield three objects with at least half a metre between neighbours."""
        for triple in permutations(self.single[:6], 3):
            places = [np.asarray(thing["center"])[:2] for thing in triple]
            if min(np.linalg.norm(places[0] - places[1]), np.linalg.norm(places[1] - places[2])) > 0.5:
                yield triple

    def angle(self, stand: dict, face: dict, sought: dict) -> float:
        origin = np.asarray(stand["center"])[:2]
        return self.signed_angle(np.asarray(face["center"])[:2] - origin, np.asarray(sought["center"])[:2] - origin)

    @staticmethod
    def signed_angle(ahead: np.ndarray, other: np.ndarray) -> float:
        """Return the angle from `ahead` to `other`, seen from above, positive to the left, radians."""
        cross = ahead[0] * other[1] - ahead[1] * other[0]
        return float(np.arctan2(cross, ahead @ other))


def _direction(level: str, angle: float) -> str:
    side = "left" if angle > 0 else "right"
    if level == "easy":
        return side
    if level == "medium":
        return "back" if abs(angle) > np.deg2rad(135) else side
    return ("front-" if abs(angle) < np.pi / 2 else "back-") + side
