"""Questions about one room, sampled so that words and image height do not give answers away."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from processing.rooms.questions.wording import (
    TEMPLATES,
    article,
    has_colour,
    metres,
    object_phrase,
    plural,
    position_words,
    whereabouts,
)
from processing.rooms.scene.palette import COLOURS, pick

__all__ = ["CLEAR_SHARE", "MIN_SHARE", "SceneFacts", "ask_questions"]

MIN_SHARE = 0.008  # of frame 0's pixels; an object must show this much there to be asked about
CLEAR_SHARE = 0.004  # of some frame's pixels; between this and nothing an object neither counts nor is absent
_PER_TYPE = 4
_MIN_GAP = 0.3  # metres of distance between two objects whose order is asked for
_MIN_COLUMNS = 0.08  # of the image width between two objects whose sides are asked for
GROUND = "<ground>"


class SceneFacts:
    """Facts about a room that questions need, computed from geometry and instance ids.

    Args:
        objects: Dicts with id, category, colour, feature, place, support_id, center (3,), size (3,), world metres.
        instance_ids: Instance id of each pixel, (V, h, w) uint8.
        camera_to_world: Poses (V, 4, 4).
        featured: Kind whose number was planned.
    """

    def __init__(self, objects: list[dict], instance_ids: np.ndarray, camera_to_world: np.ndarray, featured: str):
        self.objects, self.featured = objects, featured
        count = max([o["id"] for o in objects], default=0) + 1
        pixels = instance_ids.shape[1] * instance_ids.shape[2]
        shares = np.stack([np.bincount(frame.ravel(), minlength=count) for frame in instance_ids]) / pixels
        self.first_share, self.best_share = shares[0], shares.max(axis=0)
        world_to_camera = np.linalg.inv(camera_to_world[0])
        self.position, self.distance = {}, {}
        self.column, self.row, self.bottom = {}, {}, {}
        width = instance_ids.shape[2]
        for thing in objects:
            n = thing["id"]
            local = world_to_camera[:3, :3] @ np.asarray(thing["center"]) + world_to_camera[:3, 3]
            self.position[n], self.distance[n] = local, float(np.linalg.norm(local))
            rows, columns = np.nonzero(instance_ids[0] == n)
            if len(rows):
                self.column[n], self.row[n], self.bottom[n] = columns.mean() / width, rows.mean(), int(rows.max())
        self.shown = [o for o in objects if self.first_share[o["id"]] >= MIN_SHARE]

    def is_clear(self, thing: dict) -> bool:
        """Return the objects seen well enough in some frame to count."""
        return self.best_share[thing["id"]] >= CLEAR_SHARE

    def is_doubtful(self, thing: dict) -> bool:
        """Return the objects seen so little that neither yes nor no would be fair."""
        return 0 < self.best_share[thing["id"]] < CLEAR_SHARE


def _question(kind: str, reference: str, text: str, answer: str, **parts) -> dict:
    row = {"type": kind, "reference": reference, "question": text, "answer": answer}
    empty = {"region_objects": [], "target_objects": [], "value": [], "hint_objects": []}
    return {**row, **empty, **parts}


class _Asker:
    def __init__(self, facts: SceneFacts, rng: np.random.Generator):
        self.facts, self.rng = facts, rng

    def named(self, reference: str) -> list[tuple[dict, str]]:
        """Return objects shown in frame 0 with the words that stand for them, shuffled."""
        facts = self.facts
        shown = [facts.shown[i] for i in self.rng.permutation(len(facts.shown))]
        if reference == "region":
            return [(o, GROUND) for o in shown]
        phrases = [(o, object_phrase(facts.objects, o)) for o in shown]
        return [(o, phrase) for o, phrase in phrases if phrase]

    def mixed(self, reference: str) -> list[tuple[dict, str]]:
        """Mix objects so that half stand on the floor, where the image row tells distance."""
        named, half = self.named(reference), _PER_TYPE // 2
        floor = [pair for pair in named if pair[0]["place"] == "floor"]
        above = [pair for pair in named if pair[0]["place"] != "floor"]
        return floor[: max(half, _PER_TYPE - len(above))] + above[: max(half, _PER_TYPE - len(floor))]

    def ask(
        self, kind: str, reference: str, things: list[tuple[dict, str]], answer: str, value=(), template=None
    ) -> dict:
        words = dict(zip("ab", (name for _, name in things), strict=False))
        text = pick(self.rng, TEMPLATES[template or kind])
        order = sorted(range(len(things)), key=lambda i: text.index("{" + "ab"[i] + "}"))
        text = text.format(**words)
        return _question(
            kind,
            reference,
            text[0].upper() + text[1:],
            answer,
            region_objects=[things[i][0]["id"] for i in order] if reference == "region" else [],
            value=[float(v) for v in value],
            hint_objects=[thing["id"] for thing, _ in things],
        )

    def single(self, reference: str) -> Iterator[dict]:
        """Ask for distance, position, colour, height and description of one object."""
        facts = self.facts
        for thing, name in self.mixed(reference):
            n = thing["id"]
            yield self.ask("distance", reference, [(thing, name)], metres(facts.distance[n]), [facts.distance[n]])
        for thing, name in self.mixed(reference):
            place = facts.position[thing["id"]]
            yield self.ask("position", reference, [(thing, name)], position_words(place), place)
        if reference == "region":
            for thing, name in self.named(reference)[:2]:
                height = float(thing["size"][2])
                yield self.ask("size", reference, [(thing, name)], metres(height), [height], template="height")
        yield from self.colours(reference)
        for thing, name in self.named(reference)[:2]:
            template = "description" if reference == "region" else "description_word"
            yield self.ask("description", reference, [(thing, name)], self.describe(thing), template=template)

    def colours(self, reference: str) -> Iterator[dict]:
        facts = self.facts
        kinds = [o["category"] for o in facts.objects]
        asked = 0
        for thing, name in self.named("region"):
            if not has_colour(thing) or asked == _PER_TYPE:
                continue
            if reference == "word":
                if kinds.count(thing["category"]) > 1:
                    continue
                name = f"the {thing['category']}"
            asked += 1
            yield self.ask("colour", reference, [(thing, name)], thing["colour"])

    def describe(self, thing: dict) -> str:
        """Describe an object: colour, kind, a feature and where it stands."""
        words = [article(f"{thing['colour']} {thing['category']}".strip()), thing["feature"], self.whereabouts(thing)]
        return " ".join(word for word in words if word)

    def whereabouts(self, thing: dict) -> str:
        facts = self.facts
        if thing["place"] != "floor":
            return whereabouts(facts.objects, thing)
        center, size = np.asarray(thing["center"]), np.asarray(thing["size"])
        best, nearest = 0.8, ""
        for other in facts.shown:
            if other["id"] == thing["id"] or other["place"] != "floor":
                continue
            gaps = np.abs(np.asarray(other["center"]) - center) - (np.asarray(other["size"]) + size) / 2
            gap = float(np.hypot(*np.maximum(gaps[:2], 0)))
            if gap < best:
                best, nearest = gap, f"next to the {other['category']}"
        return nearest

    def closer(self, reference: str) -> Iterator[dict]:
        """Draw pairs, half of them with the nearer one lower in the image.

        That holds for the mean row of what is visible and for its bottom row, so neither is a shortcut.
        """
        facts, groups = self.facts, {}
        for one, two in combinations(self.named(reference), 2):
            a, b = one[0]["id"], two[0]["id"]
            if facts.distance[a] > facts.distance[b]:
                (one, two), (a, b) = (two, one), (b, a)
            if facts.distance[b] - facts.distance[a] < _MIN_GAP:
                continue
            if abs(facts.row[a] - facts.row[b]) < 0.5 or facts.bottom[a] == facts.bottom[b]:
                continue
            groups.setdefault((facts.row[a] > facts.row[b], facts.bottom[a] > facts.bottom[b]), []).append((one, two))
        chosen = []
        for first, second in (((True, True), (False, False)), ((True, False), (False, True))):
            number = min(len(groups.get(first, [])), len(groups.get(second, [])), _PER_TYPE // 2)
            for key in (first, second):
                chosen += [groups[key][i] for i in self.rng.permutation(len(groups.get(key, [])))[:number]]
        yield from self.ordered("closer", reference, chosen)

    def size(self, reference: str) -> Iterator[dict]:
        """Draw pairs of clearly different height; with words, both of one kind."""
        pairs = []
        for one, two in combinations(self.named(reference), 2):
            a, b = float(one[0]["size"][2]), float(two[0]["size"][2])
            if reference == "word" and one[0]["category"] != two[0]["category"]:
                continue
            if abs(a - b) > max(0.08, 0.12 * max(a, b)):
                pairs.append((one, two) if a > b else (two, one))
        yield from self.ordered("size", reference, [pairs[i] for i in self.rng.permutation(len(pairs))[:_PER_TYPE]])

    def ordered(self, kind: str, reference: str, pairs) -> Iterator[dict]:
        """Ask about pairs that hold the answer first; half name it first."""
        is_first = bool(self.rng.integers(2))
        for index in self.rng.permutation(len(pairs)):
            winner, loser = pairs[index]
            things = [winner, loser] if is_first else [loser, winner]
            yield self.ask(kind, reference, things, "the first" if is_first else "the second")
            is_first = not is_first

    def direction(self, reference: str) -> Iterator[dict]:
        facts, pairs = self.facts, []
        for one, two in combinations(self.named(reference), 2):
            if abs(facts.column[one[0]["id"]] - facts.column[two[0]["id"]]) >= _MIN_COLUMNS:
                pairs.append((one, two))
        left = bool(self.rng.integers(2))
        for index in self.rng.permutation(len(pairs))[:_PER_TYPE]:
            one, two = sorted(pairs[index], key=lambda pair: facts.column[pair[0]["id"]])
            yield self.ask("direction", reference, [one, two] if left else [two, one], "left" if left else "right")
            left = not left

    def counting(self) -> Iterator[dict]:
        facts, kind = self.facts, self.facts.featured
        same = [o for o in facts.objects if o["category"] == kind]
        number = sum(facts.is_clear(o) for o in same)
        if number > 4 or any(facts.is_doubtful(o) for o in same):
            return
        text = pick(self.rng, TEMPLATES["counting"]).format(a=plural(kind))
        yield _question("counting", "word", text, str(number), value=[float(number)])

    def existence(self) -> Iterator[dict]:
        """Ask one yes and one no about kinds in view and even colours."""
        for truth in (True, False):
            drawn = self.coloured_phrase(truth)
            if drawn:
                text = pick(self.rng, TEMPLATES["existence"]).format(a=article(drawn[0]))
                yield _question("existence", "word", text, "yes" if truth else "no")

    def coloured_phrase(self, truth: bool) -> tuple[str, list[int]] | None:
        """Draw a colour and kind that the room shows or lacks."""
        facts = self.facts
        clear = [o for o in facts.objects if facts.is_clear(o) and has_colour(o)]
        if not truth:  # what has no main colour may have a little of each
            vague = {o["category"] for o in facts.objects if not has_colour(o)}
            clear = [o for o in clear if o["category"] not in vague]
        if not clear:
            return None
        kind = pick(self.rng, clear)["category"]
        same = [o for o in facts.objects if o["category"] == kind]
        if truth:
            colour = pick(self.rng, [o for o in same if facts.is_clear(o) and has_colour(o)])["colour"]
        else:
            colour = pick(self.rng, [c for c in COLOURS if all(o["colour"] != c for o in same)])
        return f"{colour} {kind}", [o["id"] for o in same if o["colour"] == colour]

    def grounding(self) -> Iterator[dict]:
        facts = self.facts
        for truth in (True, False):
            drawn = self.coloured_phrase(truth)
            if drawn and len(drawn[1]) == int(truth):
                yield self.ground("one", "the " + drawn[0], drawn[1])
        kinds = sorted({o["category"] for o in facts.objects if facts.is_clear(o)})
        groups = [[o for o in facts.objects if o["category"] == kind] for kind in kinds]
        groups = [g for g in groups if len(g) > 1 and all(facts.is_clear(o) for o in g)]
        if groups:
            chosen = pick(self.rng, groups)
            yield self.ground("several", plural(chosen[0]["category"]), [o["id"] for o in chosen])
        colour = pick(self.rng, COLOURS)
        same = [o for o in facts.objects if o["colour"] == colour]
        vague = any(facts.best_share[o["id"]] > 0 and o["colour"] == "" for o in facts.objects)
        if not vague and not any(facts.is_doubtful(o) or o["category"] == "plant" for o in same):
            yield self.ground("of_colour", colour, [o["id"] for o in same if facts.is_clear(o)])

    def ground(self, template: str, words: str, targets: list[int]) -> dict:
        text = pick(self.rng, TEMPLATES[template]).format(a=words)
        return _question("grounding", "word", text, GROUND, target_objects=targets)


def ask_questions(facts: SceneFacts, rng: np.random.Generator) -> list[dict]:
    """Ask all questions of a room.

    Returns:
        Dicts with type, reference, question, answer, region_objects, target_objects, value.
    """
    asker, questions = _Asker(facts, rng), []
    for reference in ("region", "word"):
        questions += asker.single(reference)
        questions += asker.closer(reference)
        questions += asker.direction(reference)
        questions += asker.size(reference)
    questions += asker.counting()
    questions += asker.existence()
    questions += asker.grounding()
    return questions
