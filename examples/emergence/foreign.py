"""Do geometry terms help a model that is not ours? A nano Qwen3-VL under a plain `Trainer`, with and without them.

    python -m examples.emergence.foreign --split validation --seeds 0
    python -m examples.emergence.foreign --split test --keep docs/study/foreign/test.json
    python -m examples.emergence.foreign --split test --keep docs/study/foreign/test.json --report-only

docs/study/foreign/protocol.md says what is compared, and how. Runs are done one after the other, with one thread. A
study that was stopped goes on behind its last phase.
"""

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Qwen3VLForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments, set_seed

from modeling_ide3d.auxiliary import GeometricValidatorConfig
from processing.rooms import load_rooms
from processing.tables import format_band, format_number, markdown_table
from processing.writing import write_json
from trainer import GeometrySupervision
from trainer.evaluation.compare import compare_paired
from trainer.supervision import GeometryCriterion
from trainer.teachers.point_map import PointMapTeacher

from ..storage import load_json
from .baselines import score_baselines
from .files import save_weights
from .foreign_host import HostCollator, HostSizes, QuestionSteps, RoomSteps, build_host, read_answers
from .questions import read_asked, sample_questions, store_asked
from .rooms import RoomArrays, store_rooms
from .scores import METRICS, count_hits, judge
from .summary import digits

__all__ = ["ARMS", "ForeignStudy", "compare_arms", "format_learning", "format_report", "main", "train_run"]

logger = logging.getLogger("foreign")

ADVICE = "Remove it, and what it says is done again."
ARMS = ("exposure", "all")  # words alone, and geometry terms beside them
SCORED = ("position_50", "position_25", "position_100", "distance", "colour")
HEAD_SEED = 10_000  # between the seeds of the model and of the heads
BASELINE_ROOMS = 600
SCORED_AT_ONCE = 32  # views
NUM_LOGS = 20  # of a phase


@dataclass(frozen=True)
class ForeignStudy:
    """Sizes of the study; the defaults are those of its protocol.

    Args:
        sizes: Sizes of model and frames.
        num_rooms: Number of training rooms, all with depth and poses.
        labelled_rooms: Number of training rooms with questions.
        num_frames: Number of frames of a training room.
        scored: First room and number of rooms of each split, of which the first frame is asked about.
        pool_steps: Number of steps on rooms without questions.
        pool_batch: Number of rooms of such a step.
        question_steps: Number of steps on questions, with the tower frozen.
        question_batch: Number of views of such a step.
        learning_rate: Learning rate of both phases, of heads too.
        jitter: Standard deviation in metres of what is added to a number of a training answer.
        weights: Weight of each geometry term.
        wavelengths: Wavelengths of the point map in metres.
    """

    sizes: HostSizes = HostSizes()
    num_rooms: int = 3000
    labelled_rooms: int = 100
    num_frames: int = 4
    scored: dict[str, tuple[int, int]] = field(default_factory=lambda: {"validation": (0, 100), "test": (6000, 600)})
    pool_steps: int = 400
    pool_batch: int = 1
    question_steps: int = 300
    question_batch: int = 16
    learning_rate: float = 1.5e-3
    jitter: float = 0.2
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "loss_depth": 1.0,
            "loss_cross_view_depth": 0.2,
            "loss_distillation": 12.0,
            "loss_overlap_l1": 0.0,
            "loss_view_consistency": 0.0,
        }
    )
    wavelengths: tuple[float, ...] = (40.0, 20.0, 10.0, 5.0)


def attach_terms(model: Qwen3VLForConditionalGeneration, study: ForeignStudy, seed: int) -> GeometrySupervision:
    """Attach the geometry terms and let the model hold their heads.

    The teacher is compared with the visual tokens as they enter the language model.
    """
    set_seed(seed + HEAD_SEED)
    vision = model.config.vision_config
    supervision = GeometrySupervision.attach(
        model,
        validator=GeometricValidatorConfig.light(
            vision, patch_size=vision.patch_size, output_stride=4, protocol="clean"
        ),
        teacher_size=6 * len(study.wavelengths),
        criterion=GeometryCriterion(pair_mode="random", pairs_per_frame=1),
        loss_weights=study.weights,
        distillation_layers=["language.0"],
    )
    supervision.join(model)
    return supervision


class TermHistory(TrainerCallback):
    """Keeps the unweighted geometry terms of every step, which a plain `Trainer` does not log.

    Args:
        supervision: Supervision that the trained model holds; None: there are no terms.
    """

    def __init__(self, supervision: GeometrySupervision | None):
        self.supervision, self.steps = supervision, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the terms of a step."""
        if self.supervision is not None:
            self.steps.append({name: float(term) for name, term in self.supervision.terms.items()})

    def mean_parts(self, parts: int) -> list[dict[str, float]]:
        """Return the means of each term over so many consecutive parts of the training."""
        split = np.array_split(np.array([list(step.values()) for step in self.steps]), min(parts, len(self.steps)))
        return [dict(zip(self.steps[0], part.mean(0).round(4).tolist(), strict=True)) for part in split]


def train_phase(
    model: Qwen3VLForConditionalGeneration,
    study: ForeignStudy,
    steps: Dataset,
    collator: HostCollator,
    batch: int,
    seed: int,
    output: Path,
    supervision: GeometrySupervision | None = None,
) -> dict[str, Any]:
    """Train a phase by a plain `Trainer`; return its losses and cost."""
    count = len(steps) // batch
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=count,
        per_device_train_batch_size=batch,
        learning_rate=study.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(40, count // 5),
        weight_decay=0.05,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        logging_steps=max(1, count // NUM_LOGS),
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
    )
    set_seed(seed)
    model.train()
    begun = time.process_time()
    terms = TermHistory(supervision)
    trainer = Trainer(model, arguments, train_dataset=steps, data_collator=collator, callbacks=[terms])
    trainer.train()
    history = [
        {"step": entry["step"], "loss": round(entry["loss"], 4)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    about = {"steps": count, "cpu_seconds": round(time.process_time() - begun, 1), "history": history}
    return about | ({"terms": terms.mean_parts(NUM_LOGS)} if terms.steps else {})


def train_run(study: ForeignStudy, arm: str, seed: int, folder: Path) -> tuple[Qwen3VLForConditionalGeneration, dict]:
    """Train an arm with a seed, behind the phase that is done.

    It returns the model and losses and cost of its phases.

    Args:
        study: Study.
        arm: One of `ARMS`.
        seed: Seed of first weights, labelled rooms and order of the data.
        folder: Output folder of the study, with the rooms of `store_rooms`.
    """
    model = build_host(study.sizes, seed)
    run, rooms = folder / "runs" / f"seed{seed}-{arm}", RoomArrays(folder / "rooms" / "train")
    pooled, about = run / "pool.safetensors", run / "pool.json"
    if pooled.is_file():
        model.load_state_dict(load_file(pooled))
        phases = {"pool": load_json(about, ADVICE)}
    else:
        steps = RoomSteps(rooms, study.pool_steps * study.pool_batch, seed + 1)
        teacher = PointMapTeacher(study.wavelengths, "own") if arm == "all" else None
        supervision = attach_terms(model, study, seed) if arm == "all" else None
        collator = HostCollator(study.sizes, teacher)
        phases = {"pool": train_phase(model, study, steps, collator, study.pool_batch, seed + 1, run, supervision)}
        if supervision is not None:
            supervision.detach()
        write_json(about, phases["pool"])
        save_weights(pooled, model.state_dict())
    model.model.visual.requires_grad_(False)
    samples = sample_labelled(study, seed)
    steps = QuestionSteps(samples, study.question_steps * study.question_batch, seed + 2, study.jitter)
    phases["questions"] = train_phase(
        model, study, steps, HostCollator(study.sizes), study.question_batch, seed + 2, run
    )
    return model, phases


def sample_labelled(study: ForeignStudy, seed: int) -> list[dict]:
    """Return questions about all views of the labelled rooms of a seed."""
    rooms = open_train(study)
    order = np.random.default_rng([seed, 7]).permutation(len(rooms))[: study.labelled_rooms]
    return sample_questions([rooms[int(index)] for index in order], study.sizes.grid, seed)


def open_train(study: ForeignStudy) -> Any:
    """Open the training rooms."""
    return load_rooms("train", study.num_rooms, image_size=study.sizes.image_size, num_frames=study.num_frames)


def open_scored(study: ForeignStudy, split: str) -> Any:
    """Open the rooms of a split that are asked about, with one frame each."""
    first, count = study.scored[split]
    return load_rooms(split, count, start=first, image_size=study.sizes.image_size, num_frames=1)


def score_run(model: Qwen3VLForConditionalGeneration, study: ForeignStudy, asked: Sequence[dict]) -> dict[str, Any]:
    """Return right answers and questions of every room by metric, a digit a room."""
    collator, answers = HostCollator(study.sizes), []
    model.eval()
    for start in range(0, len(asked), SCORED_AT_ONCE):
        answers += read_answers(model, collator, asked[start : start + SCORED_AT_ONCE])
    per_room = [
        [judge(sample["questions"][place], text) for place, text in own.items()]
        for sample, own in zip(asked, answers, strict=True)
    ]
    return {side: {name: found[name] for name in SCORED} for side, found in count_hits(per_room).items()}


def do_run(study: ForeignStudy, arm: str, seed: int, split: str, folder: Path) -> dict[str, Any]:
    """Train and score a run, or return its result if it is done."""
    path = folder / "runs" / f"seed{seed}-{arm}" / f"{split}.json"
    if path.is_file():
        return load_json(path, ADVICE)
    model, phases = train_run(study, arm, seed, folder)
    scores = score_run(model, study, read_asked(folder / "asked" / split))
    result = {"arm": arm, "seed": seed, "split": split, "phases": phases, **scores}
    write_json(path, result, indent=None)
    return result


def compare_arms(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare `all` with `exposure` over the seeds that both have.

    Args:
        runs: Results of `do_run` of one split.

    Returns:
        By metric: `exposure` and `all`, the share of each seed, `questions`, and the fields of `Difference`.

    Raises:
        ValueError: If no seed has both arms, or results are about other questions.
    """
    by_arm = {arm: {run["seed"]: run for run in runs if run["arm"] == arm} for arm in ARMS}
    seeds = sorted(set(by_arm["all"]) & set(by_arm["exposure"]))
    if not seeds:
        raise ValueError("No seed has both arms: nothing to compare.")
    chosen = {arm: [by_arm[arm][seed] for seed in seeds] for arm in ARMS}
    if any(run["counts"] != chosen["all"][0]["counts"] for own in chosen.values() for run in own):
        raise ValueError("Results are about other questions. Remove those of an earlier choice of rooms.")
    found: dict[str, Any] = {"seeds": seeds}
    for name in SCORED:
        counts = digits(chosen["all"][0]["counts"][name])
        hits = {arm: np.stack([digits(run["hits"][name]) for run in own]) for arm, own in chosen.items()}
        shares = {arm: (own.sum(1) / max(1, counts.sum())).tolist() for arm, own in hits.items()}
        gap = compare_paired(hits["all"], hits["exposure"], counts)
        entry = {**dataclasses.asdict(gap), "is_established": gap.is_established}
        found[name] = {"questions": int(counts.sum()), **shares, **entry}
    return found


def format_report(found: dict[str, Any], baselines: dict[str, dict[str, float | None]]) -> str:
    """Return the comparison as a table in Markdown, in percent."""
    rows = []
    for name in SCORED:
        entry = found[name]
        sides = [", ".join(format_number(100 * share, 1) for share in entry[arm]) for arm in ARMS]
        bands = [
            format_band(entry[key] and [100 * end for end in entry[key]])
            for key in ("scene_interval", "seed_interval")
        ]
        blind = [value for value in baselines.get(name, {}).values() if value is not None]
        best = format_number(100 * max(blind), 1) if blind else ""
        gap = format_number(100 * entry["value"], 1, sign=True)
        rows.append([METRICS[name], str(entry["questions"]), best, *sides, gap, *bands])
    seeds = ", ".join(map(str, found["seeds"]))
    head = ["share of right answers", "questions", "best without sight", *(f"`{arm}`, seeds {seeds}" for arm in ARMS)]
    return markdown_table([*head, "difference", "95 % over rooms", "95 % over seeds"], rows, "lrrrrrrr")


def format_learning(runs: Sequence[dict[str, Any]], weights: dict[str, float]) -> str:
    """Return first and last losses of the pool phase as a table in Markdown.

    They are means over a fifth of it.

    Args:
        runs: Results of `do_run`.
        weights: Weight of each geometry term: what is left of the loss is that of the words.
    """
    rows = []
    for run in sorted(runs, key=lambda run: (run["seed"], ARMS.index(run["arm"]))):
        phase = run["phases"]["pool"]
        losses = np.array([entry["loss"] for entry in phase["history"]])
        columns = {name: [step[name] for step in phase.get("terms", [])] for name in weights if weights[name]}
        terms = {name: np.array(values) for name, values in columns.items() if values}
        words = losses - sum((weights[name] * values for name, values in terms.items()), np.zeros_like(losses))
        fifth = max(1, len(losses) // 5)
        cells = [
            ""
            if values is None
            else " to ".join(format_number(part.mean()) for part in (values[:fifth], values[-fifth:]))
            for values in (words, *(terms.get(name) for name in columns))
        ]
        seconds = [format_number(run["phases"][phase]["cpu_seconds"], 0) for phase in ("pool", "questions")]
        rows.append([f"`{run['arm']}`, seed {run['seed']}", *cells, *seconds])
    names = [f"`{name}`" for name in weights if weights[name]]
    head = ["pool phase, first to last fifth", "words", *names, "CPU seconds, pool", "questions"]
    return markdown_table(head, rows, "l" + "r" * (len(head) - 1))


def prepare(study: ForeignStudy, split: str, folder: Path) -> dict[str, dict[str, float | None]]:
    """Store what all runs share; return the scores of predictors that see no pixel."""
    rooms = open_scored(study, split)
    store_rooms(folder / "rooms", "train", study.num_rooms, study.sizes.grid, study.num_frames)
    store_asked(folder / "asked" / split, rooms, study.sizes.grid)
    path = folder / f"baselines-{split}.json"
    if not path.is_file():
        train = open_train(study)
        fit = [train[index] for index in range(min(BASELINE_ROOMS, len(train)))]
        write_json(path, score_baselines(fit, rooms))
    return load_json(path, ADVICE)


def run_study(study: ForeignStudy, split: str, seeds: Sequence[int], folder: Path, keep: Path | None) -> dict:
    """Do the runs that are not kept, seed by seed; return all results."""
    kept = {"baselines": {}, "runs": []} if keep is None or not keep.is_file() else json.loads(keep.read_text())
    done = {(run["arm"], run["seed"]): run for run in kept["runs"]}
    missing = [(arm, seed) for seed in seeds for arm in ARMS if (arm, seed) not in done]
    if missing:
        kept["baselines"] = prepare(study, split, folder)
    for arm, seed in missing:
        done[arm, seed] = do_run(study, arm, seed, split, folder)
        kept["runs"] = list(done.values())
        logger.info("%s, seed %d: done", arm, seed)
        if keep is not None:
            write_json(keep, kept, indent=None)
    return kept


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Run the study and log the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m examples.emergence.foreign", description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--seeds", nargs="+", type=int, default=[21, 22, 23])
    parser.add_argument("--output", type=Path, default=Path("outputs/emergence_foreign"), help="folder of the runs")
    parser.add_argument("--keep", type=Path, help="JSON of results without weights: its runs are not done again")
    parser.add_argument("--report-only", action="store_true", help="train nothing, report what is kept")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    seeds = [] if options.report_only else options.seeds
    kept = run_study(ForeignStudy(), options.split, seeds, options.output, options.keep)
    found = compare_arms(kept["runs"])
    logger.info("%s", format_report(found, kept["baselines"]))
    logger.info("\n%s", format_learning(kept["runs"], ForeignStudy().weights))
    return found


if __name__ == "__main__":
    main()
