"""Scores that the paper published, and how those of a run compare with them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processing.benchmarks.readers.requirements import list_modes
from processing.tables import format_band, format_number, markdown_table
from processing.writing import write_json, write_text

__all__ = ["PUBLISHED", "Comparison", "Published", "as_markdown", "compare_scores", "write_table"]

SOURCE = "3D-IDE (CVPR 2026, arXiv 2604.03296), table of results on the project page"
ROUNDING = 0.05  # published to one decimal


@dataclass(frozen=True)
class Published:
    """Published scores of a benchmark.

    Args:
        samples: Number of samples of the benchmark's split.
        scores: Scores in percent by their name in the "paper" protocol.
    """

    samples: int
    scores: Mapping[str, float]


PUBLISHED = {
    "scanrefer": Published(9508, {"acc@0.25": 60.9, "acc@0.5": 54.5}),
    "multi3drefer": Published(11120, {"f1@0.25": 59.8, "f1@0.5": 54.9}),
    # One sample for each object. That the box reaches an overlap of 0.5 is decided in the data: a box is given or not.
    "scan2cap": Published(2068, {"cider": 79.0, "bleu-4": 40.7}),
    "scanqa": Published(4675, {"cider": 102.1, "em": 29.8}),
    "sqa3d": Published(3519, {"em": 59.2}),
}


@dataclass(frozen=True)
class Comparison:
    """One score of one checkpoint beside the published one, all in percent.

    Args:
        checkpoint: Name of the checkpoint.
        task: Key of `PUBLISHED`.
        score: Name of the score in the "paper" protocol.
        ours: Measured score.
        theirs: Published score.
        low: Lower end of the 95 % band of `ours` over scenes; None where there are too few scenes.
        high: Upper end of the band.
        samples: Number of samples of the run.
        published_samples: Number of samples of the benchmark.
    """

    checkpoint: str
    task: str
    score: str
    ours: float
    theirs: float
    low: float | None
    high: float | None
    samples: int
    published_samples: int

    @property
    def difference(self) -> float:
        """Return ours minus theirs."""
        return self.ours - self.theirs

    @property
    def within_band(self) -> bool | None:
        """Whether the published score may lie in the band; None without a band.

        The score before it was rounded counts.
        """
        if self.low is None or self.high is None:
            return None
        return self.low - ROUNDING <= self.theirs <= self.high + ROUNDING

    @property
    def verdict(self) -> str:
        """Say the above in words, and whether the data are those of the published score."""
        words = {None: "no band: too few scenes", True: "within the band", False: "outside the band"}[self.within_band]
        return words if self.is_whole else f"{words}, other data"

    @property
    def is_whole(self) -> bool:
        """Whether the run has as many samples as the benchmark."""
        return self.samples == self.published_samples


def compare_scores(checkpoint: str, results: Mapping[str, Any]) -> list[Comparison]:
    """Compare the results of one run, as `run_evaluation` returns them, with the published scores.

    Raises:
        ValueError: If the run was made in another mode than the published scores.
    """
    task, scores = results["task"], results["scores"]["paper"]
    if (made := results.get("mode")) != (mode := list_modes(task)[0]):
        raise ValueError(
            f"The published scores of {task} are of the mode {mode!r}, these are of {made!r}: another "
            "task, which is not compared with them."
        )
    published = PUBLISHED[task]
    return [
        Comparison(
            checkpoint, task, name, scores[name], theirs, *scores["bands"][name], results["num_samples"],
            published.samples,
        )
        for name, theirs in published.scores.items()
    ]  # fmt: skip


HEAD = (
    "Checkpoint",
    "Benchmark",
    "Score",
    "Ours",
    "95 % band",
    "Theirs",
    "Difference",
    "Verdict",
    "Samples (published)",
)
NOISE = (
    "The band is over scenes: where the score would fall on other scenes of the same kind. A difference "
    "outside it is no noise. One within it may still be more than noise, since both runs saw the same scenes."
)
OTHER_DATA = (
    '"Other data": the number of samples is not that of the benchmark. Such a score cannot be compared with the '
    "published one, whatever the band says; CIDEr depends on all references of the split."
)


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the table for people, with what they have to know about it."""
    rows = [
        (
            row.checkpoint,
            row.task,
            row.score,
            format_number(row.ours),
            format_band((row.low, row.high)),
            format_number(row.theirs, 1),
            format_number(row.difference, sign=True),
            row.verdict,
            f"{row.samples} ({row.published_samples})",
        )
        for row in comparisons
    ]
    parts = [
        "# Reproduction",
        f"Protocol `paper`, scores in percent. Theirs: {SOURCE}.",
        markdown_table(HEAD, rows, "lllrrrr"),
        NOISE,
    ]
    if not all(row.is_whole for row in comparisons):
        parts.append(OTHER_DATA)
    return "\n\n".join(parts) + "\n"


def write_table(folder: Path, comparisons: Sequence[Comparison]) -> None:
    """Write `reproduction.md` and `reproduction.json`."""
    record = {"protocol": "paper", "source": SOURCE, "scores": [_row(comparison) for comparison in comparisons]}
    write_text(folder / "reproduction.md", as_markdown(comparisons))
    write_json(folder / "reproduction.json", record)


def _row(comparison: Comparison) -> dict[str, Any]:
    return {
        **asdict(comparison),
        "difference": comparison.difference,
        "within_band": comparison.within_band,
        "is_whole": comparison.is_whole,
        "verdict": comparison.verdict,
    }
