"""Questions about single cells of the first frame; depth says what is true of them."""

from collections.abc import Iterator

import numpy as np

from processing.rooms.questions.wording import TEMPLATES, metres, position_words
from processing.rooms.samples import cell_colours, cell_depth, chat, video_arrays
from processing.rooms.scene.palette import pick
from processing.token_grid import TokenGrid

__all__ = ["place_sample"]

_CLOSER_RATIO = 1.15  # of two distances; below it "closer" is a matter of opinion
_SIDE_CELLS = 2  # columns apart; below it left and right are


def place_sample(
    row: dict, token_grid: TokenGrid, rng: np.random.Generator, num_questions: int = 14, view: int | None = None
) -> dict:
    """Ask about single cells of the first frame, packed over one video.

    Objects give a handful of questions a room; places give as many as one likes, of the same wording, and cover all
    distances and sides. Kinds in turn: distance, position, closer, direction, colour.

    Args:
        row: Row of `load_rooms`.
        token_grid: Token grid of the model that will see the sample.
        rng: Generator of the draws.
        num_questions: Number of questions.
        view: Frame that is shown alone, as a video of one frame; None shows the whole video and asks about its first.

    Returns:
        Dict as `room_samples` gives it, with region_masks (N, V, rows, cols) of one cell each.
    """
    video, colours = video_arrays(row), cell_colours(row, token_grid)
    if view is not None:
        video = {key: value[view : view + 1] for key, value in video.items()}
        colours = colours[view : view + 1]
    asker = _PlaceAsker(_cell_points(video, token_grid), colours[0], rng)
    questions, cells = [], []
    for kind in asker.kinds(num_questions):
        entry, places = asker.ask(kind)
        questions.append(entry)
        cells += places
    masks = np.zeros((len(cells), len(video["frames"]), *token_grid.shape), bool)
    for mask, (r, c) in zip(masks, cells, strict=True):
        mask[0, r, c] = True
    return {
        **video,
        "messages": [chat(entry) for entry in questions],
        "questions": questions,
        "region_masks": masks,
        "region_references": np.arange(len(cells)),
    }


def _cell_points(video: dict, token_grid: TokenGrid) -> np.ndarray:
    """Return the points (rows, cols, 3) at the cells' middles, first camera's frame, metres."""
    depth, (v, u) = cell_depth(video["depth"][:1], token_grid)
    pixels = np.stack(np.broadcast_arrays(u[None, :], v[:, None], np.ones((1, 1))), -1)
    rays = pixels @ np.linalg.inv(video["intrinsics"][0]).T
    return rays * depth[0][..., None]


class _PlaceAsker:
    def __init__(self, points: np.ndarray, colours: np.ndarray, rng: np.random.Generator):
        self.points, self.colours, self.rng = points, colours, rng
        self.distance = np.linalg.norm(points, axis=-1)
        self.coloured = np.argwhere(colours != "")

    def kinds(self, number: int) -> Iterator[str]:
        """Yield kinds in turn, in random order, colour only where something has one."""
        turn = ["distance", "position", "closer", "direction"] + ["colour"] * (len(self.coloured) > 0)
        order = [turn[i % len(turn)] for i in range(number)]
        return (order[i] for i in self.rng.permutation(number))

    def draw(self) -> tuple[int, int]:
        """Draw a cell whose middle is measured; of a frame without any, some cell."""
        (rows, cols), is_measured = self.distance.shape, self.distance > 0
        while True:
            cell = int(self.rng.integers(rows)), int(self.rng.integers(cols))
            if is_measured[cell] or not is_measured.any():
                return cell

    def draw_pair(self, kind: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Draw two cells that differ clearly in what is asked; after many tries, any two."""
        for _ in range(200):
            a, b = self.draw(), self.draw()
            near, far = sorted((self.distance[a], self.distance[b]))
            if abs(a[1] - b[1]) >= _SIDE_CELLS if kind == "direction" else far >= _CLOSER_RATIO * near:
                return a, b
        return (0, 0), (self.distance.shape[0] - 1, self.distance.shape[1] - 1)

    def ask(self, kind: str) -> tuple[dict, list[tuple[int, int]]]:
        """Return a question and the cells its `<ground>` tokens stand for, in order."""
        text = pick(self.rng, TEMPLATES[kind])
        if kind in ("closer", "direction"):
            a, b = self.draw_pair(kind)
            places = [a, b] if text.index("{a}") < text.index("{b}") else [b, a]
            if kind == "closer":
                answer = "the first" if self.distance[places[0]] < self.distance[places[1]] else "the second"
            else:
                answer = "left" if a[1] < b[1] else "right"
            value = []
        elif kind == "colour":
            a = tuple(int(i) for i in self.coloured[self.rng.integers(len(self.coloured))])
            places, answer, value = [a], str(self.colours[a]), []
        else:
            a = self.draw()
            places, value = [a], [self.distance[a]] if kind == "distance" else self.points[a]
            answer = metres(value[0]) if kind == "distance" else position_words(value)
        text = text.format(a="<ground>", b="<ground>")
        entry = {"type": kind, "reference": "region", "question": text[0].upper() + text[1:], "answer": answer}
        entry |= {"region_objects": [], "target_objects": [], "hint_objects": [], "value": [float(v) for v in value]}
        return entry, places
