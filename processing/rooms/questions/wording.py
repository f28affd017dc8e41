"""Words of questions and answers: templates, phrases for objects, numbers."""

import re

__all__ = [
    "TEMPLATES",
    "TYPES",
    "article",
    "find_template",
    "has_colour",
    "metres",
    "object_phrase",
    "plural",
    "position_words",
    "whereabouts",
]

# "{a}" and "{b}" are objects: `<ground>` in questions that point, a phrase such as "the red chair" in the others.
TEMPLATES = {
    "distance": (
        "How far is {a} from the camera?",
        "What is the distance from the camera to {a}?",
        "How many meters away is {a}?",
    ),
    "position": (
        "Where is {a} in meters?",
        "What is the position of {a}?",
        "Give the coordinates of {a} seen from the first camera.",
    ),
    "closer": (
        "Which is closer to the camera, {a} or {b}?",
        "Which one is nearer to the camera, {a} or {b}?",
        "Of {a} and {b}, which is closer to the camera?",
    ),
    "direction": (
        "Is {a} to the left or to the right of {b}?",
        "On which side of {b} is {a}, left or right?",
        "Is {a} to the right or to the left of {b}?",
    ),
    "size": (
        "Which is taller, {a} or {b}?",
        "Of {a} and {b}, which is taller?",
        "Which one has the greater height, {a} or {b}?",
    ),
    "height": ("How tall is {a}?", "What is the height of {a}?", "How many meters tall is {a}?"),
    "colour": ("What colour is {a}?", "What is the colour of {a}?", "Which colour does {a} have?"),
    "counting": (
        "How many {a} are in the room?",
        "How many {a} can you see?",
        "What is the number of {a} in the video?",
    ),
    "existence": ("Is there {a} in the room?", "Can you see {a}?", "Does the room have {a}?"),
    "description": ("Describe {a}.", "What is {a}?", "Say what {a} looks like."),
    "description_word": ("Describe {a}.", "Say what {a} looks like.", "Tell me more about {a}."),
    "one": ("Find {a}.", "Where in the video is {a}?", "Point at {a}.", "Which object is {a}?"),
    "several": ("Find all {a}.", "Where in the video are the {a}?", "Point at every one of the {a}.", "Show all {a}."),
    "of_colour": (
        "Find all {a} things.",
        "Which objects are {a}?",
        "Point at everything that is {a}.",
        "Show what is {a}.",
    ),
}

TYPES = (
    "distance",
    "position",
    "closer",
    "direction",
    "size",
    "colour",
    "counting",
    "existence",
    "description",
    "grounding",
)

_PATTERNS = [
    (name, re.compile(re.escape(template).replace(r"\{a\}", "(?P<a>.+)").replace(r"\{b\}", "(?P<b>.+)")))
    for name, templates in TEMPLATES.items()
    for template in templates
]
_PLURALS = {"box": "boxes", "bench": "benches", "shelf": "shelves", "bookshelf": "bookshelves"}


def find_template(text: str) -> tuple[str, dict[str, str]] | None:
    """Return the kind of a question of `TEMPLATES` and what it names.

    Returns:
        Key of `TEMPLATES`, and words by "a" and "b"; None for any other text.
    """
    for name, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            return name, match.groupdict()
    return None


def plural(category: str) -> str:
    """Return the plural of a kind of furniture."""
    return _PLURALS.get(category, category + "s")


def article(words: str) -> str:
    """Return the words with "a" or "an" in front."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def metres(value: float) -> str:
    """Spell a length as an answer does, such as "2.4 meters"."""
    return f"{value:.1f} meters"


def position_words(point) -> str:
    """Spell a point in metres, such as "x 0.4 y -0.2 z 2.4"."""
    x, y, z = (round(float(value), 1) + 0.0 for value in point)
    return f"x {x:.1f} y {y:.1f} z {z:.1f}"


def has_colour(thing: dict) -> bool:
    """Return whether colour tells an object: not plants, nor what has no main one."""
    return thing["category"] != "plant" and thing["colour"] != ""


def object_phrase(objects: list[dict], wanted: dict) -> str | None:
    """Return words that fit this object and no other of the room, or None."""
    same_kind = [o for o in objects if o["category"] == wanted["category"]]
    if has_colour(wanted):
        if sum(o["colour"] == wanted["colour"] for o in same_kind) == 1:
            return f"the {wanted['colour']} {wanted['category']}"
        return None
    return f"the {wanted['category']}" if len(same_kind) == 1 else None


def whereabouts(objects: list[dict], thing: dict) -> str:
    """Return the place of an object in words, such as "on the table"."""
    if thing["place"] == "top":
        host = next(other for other in objects if other["id"] == thing["support_id"])
        return f"on the {host['category']}"
    return {"wall": "on the wall", "ceiling": "below the ceiling", "floor": "on the floor"}[thing["place"]]
