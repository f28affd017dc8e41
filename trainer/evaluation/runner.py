"""Run a model over a benchmark, scene by scene, in one or several processes; a stopped run goes on."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState
from tqdm import tqdm
from transformers.utils import PROCESSOR_NAME, has_file

from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.loading_ide3d import check_place
from processing import IDE3DProcessor
from processing.benchmarks import load_scene, load_task, prompt_digest
from processing.benchmarks.readers.tasks import Layout
from processing.token_grid import TokenGrid
from processing.writing import write_json, write_text
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation.answer_log import AnswerLog
from trainer.evaluation.clicks import read_clicks
from trainer.evaluation.identity import (
    ANSWERING_PACKAGES,
    SCORING_PACKAGES,
    computing_facts,
    digest,
    find_base,
    hardware_name,
    model_revision,
    package_versions,
    scene_files_digest,
    tokenizer_digest,
)
from trainer.evaluation.lifting import lift_answers, load_truth
from trainer.evaluation.metrics import load_metric
from trainer.evaluation.metrics.scores import Protocol, check_protocol
from trainer.evaluation.report import write_report
from trainer.evaluation.results import SCENE_SCORES, EvaluationSettings
from trainer.evaluation.rgb_only import (
    WORD_TOKENS,
    describe_clicked,
    find_by_regions,
    find_by_words,
    find_fault,
)
from trainer.evaluation.tasks import EVALUATED_TASKS, EvaluatedTask, check_answers
from trainer.field_rules import check_choice
from trainer.processes import join_processes
from trainer.session.said_boxes import LOCATE, choose_numbers
from trainer.session.scene_session import SceneSession

__all__ = ["run_evaluation", "score_answers", "split_scenes"]

logger = logging.getLogger(__name__)


def load_processor(model: str) -> IDE3DProcessor:
    """Load a model's processor; for an adapter without one, which PEFT saves, its base's.

    Raises:
        FileNotFoundError: If neither has one, or there is no such folder and no model can be called so.
    """
    check_place(model)
    places = [place for place in (model, find_base(model)) if place]
    for place in places:
        if has_file(place, PROCESSOR_NAME):
            return IDE3DProcessor.from_pretrained(place)
    raise FileNotFoundError(
        f"There is no {PROCESSOR_NAME} in {' nor in '.join(places)}: save the processor of the training there, by "
        "`processor.save_pretrained`."
    )


def split_scenes(loads: Mapping[str, float], processes: int) -> list[list[str]]:
    """Return the scenes of each process: largest first, to the least loaded."""
    shares: list[list[str]] = [[] for _ in range(processes)]
    totals = [0.0] * processes
    for scene in sorted(loads, key=lambda name: (-loads[name], name)):
        least = totals.index(min(totals))
        shares[least].append(scene)
        totals[least] += loads[scene]
    return shares


class Evaluation:
    """One run: samples, model, log.

    Args:
        settings: Settings of the run.
        processes: Number, rank and device of this process.
    """

    def __init__(self, settings: EvaluationSettings, processes: PartialState):
        self.processes = processes
        self.task: EvaluatedTask = EVALUATED_TASKS[settings.task]
        self.processor = processor = load_processor(settings.model)
        if settings.finding == "words":
            settings = replace(settings, numbers=choose_numbers(settings.numbers, processor.tokenizer))
        self.settings = settings
        self.grid = TokenGrid.of(processor)
        self.num_frames = settings.num_frames or self.processor.video_processor.num_frames
        self.split = settings.split or self.task.task.eval_split
        self.samples = load_task(
            settings.task,
            self.split,
            settings.data,
            boxes=settings.boxes,
            frames=settings.frames,
            num_frames=self.num_frames,
            scenes=settings.scenes,
            mode=settings.mode,
        ).to_list()
        self.by_id = {sample["id"]: sample for sample in self.samples}
        self.clicks = None if settings.clicks is None else read_clicks(settings.clicks, self.samples)
        self._tell_empty_scenes()
        own_tokens = WORD_TOKENS if settings.finding == "words" else self.task.max_new_tokens
        self.max_new_tokens = settings.max_new_tokens or own_tokens
        options = {"attn_implementation": settings.attention} if settings.attention else {}
        self.model = IDE3DForConditionalGeneration.from_pretrained(settings.model, dtype=settings.dtype, **options)
        self.model = self.model.to(processes.device).eval()
        self.identity = self._identity()
        versions = {**package_versions(ANSWERING_PACKAGES), "hardware": hardware_name(self.model.device)}
        self.log = AnswerLog(settings.output, self.identity, processes.process_index, versions)

    def _tell_empty_scenes(self) -> None:
        """Warn of scenes where grounding has nothing to choose from."""
        empty = sorted({sample["scene_id"] for sample in self.samples if not len(sample["candidate_boxes"])})
        is_chosen = self.task.task.kind == "ground" and not self.settings.is_rgb_only
        if is_chosen and empty and self.processes.is_main_process:
            source = self.settings.boxes or "pred"
            logger.warning(
                "%d scenes have no candidate boxes, the first is %s: their questions count as if nothing was found. "
                "Expected boxes of each scene in %s.",
                len(empty),
                empty[0],
                Layout(self.settings.data).boxes(self.split, source),
            )

    def _find_fault(self, row: dict[str, Any]) -> str | None:
        """Return what is wrong with a stored answer; None if nothing is."""
        sample = self.by_id.get(row["id"])
        if sample is None:
            return f"{row['id']!r} is no sample of this run"
        if self.settings.is_rgb_only:
            return find_fault(self.task.task, self.settings.finding, sample, row, self.grid)
        if "boxes" in row:
            return f'the answer to {row["id"]!r} has "boxes", as of another mode'
        return self.task.find_fault(sample, row)

    def _identity(self) -> dict[str, Any]:
        """Return all that an answer depends on; another value is another run."""
        settings, task = self.settings, self.task
        by_scene = {sample["scene_id"]: sample["frame_names"] for sample in self.samples}
        asked = [
            [sample[key] for key in ("id", "question", "options", "candidate_boxes", "input_box")]
            for sample in self.samples
        ]
        is_shown = task.needs_regions and not settings.is_rgb_only
        uses_boxes = task.task.kind == "ground" and is_shown
        asked += self.clicks.as_rows() if self.clicks else []
        is_said = settings.finding == "words"
        return {
            "task": settings.task,
            "split": self.split,
            "mode": settings.mode,
            "protocol": settings.protocol,
            "model": Path(settings.model).name if Path(settings.model).is_dir() else settings.model,
            "model_revision": model_revision(settings.model, getattr(self.model.config, "_commit_hash", None)),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            **computing_facts(self.model, reads_videos=not all(by_scene.values())),
            "prompt_digest": digest(LOCATE)
            if is_said
            else prompt_digest(settings.task, protocol=settings.protocol, stage="eval"),
            "chat_template_digest": digest(self.processor.chat_template),
            "tokenizer_digest": tokenizer_digest(self.processor.tokenizer),
            "frames": settings.frames,
            "num_frames": self.num_frames,
            "frame_list_digest": digest(by_scene),
            "scene_files_digest": scene_files_digest(settings.data, by_scene, self._parts()),
            "samples_digest": digest(asked),
            "proposals": (settings.boxes or "pred") if uses_boxes else None,
            "region_source": settings.regions if is_shown else None,
            "skip_invalid_poses": settings.skip_invalid_poses if is_shown else None,
            "finding": settings.finding if settings.is_rgb_only and task.task.kind == "ground" else None,
            "numbers": settings.numbers if is_said else None,
            "clicks": self.clicks and self.clicks.source,
            "max_new_tokens": self.max_new_tokens,
            "decoding": "greedy",
        }

    def _parts(self) -> tuple[str, ...]:
        """Return the parts of a scene that are opened to answer."""
        return self.task.parts(self.settings.mode, self.settings.frames, self.settings.regions)

    def answer_all(self) -> None:
        """Answer the open questions of this process's share of the scenes."""
        done = set(self.log.read(self._find_fault))
        # A process that is ahead writes answers while another still reads: all must agree on what was done before.
        self.processes.wait_for_everyone()
        by_scene: dict[str, list[dict]] = {}
        for sample in self.samples:
            by_scene.setdefault(sample["scene_id"], []).append(sample)
        open_questions = {
            scene: sum(sample["id"] not in done for sample in samples) for scene, samples in by_scene.items()
        }
        # A scene costs about as much as two hundred short questions.
        loads = {scene: 200.0 + number for scene, number in open_questions.items() if number}
        share = split_scenes(loads, self.processes.num_processes)[self.processes.process_index]
        total = sum(open_questions[scene] for scene in share)
        is_main = self.processes.is_main_process
        with tqdm(
            total=total, desc=self.settings.task, unit="question", disable=None if is_main else True
        ) as progress:
            for scene in share:
                self._answer_scene(scene, by_scene[scene], done, progress)

    def _answer_scene(self, scene_id: str, samples: list[dict], done: set[str], progress: tqdm) -> None:
        """Answer the open questions of a scene, in the batches of an undisturbed run.

        So a run that was stopped gives the same answers as one that was not.
        """
        settings = self.settings
        scene = load_scene(
            settings.data,
            scene_id,
            frame_names=samples[0]["frame_names"],
            parts=self._parts(),
            num_frames=self.num_frames,
            skip_invalid_poses=settings.skip_invalid_poses,
        )
        if self.clicks:
            self.clicks.check_frames(scene, samples)
        session = SceneSession(
            self.model, self.processor, scene.frames, max_memory=settings.max_memory, do_sample_frames=False
        )
        regions = SceneRegions(scene, self.grid, settings.regions, settings.protocol)
        for start in range(0, len(samples), settings.batch_size):
            batch = samples[start : start + settings.batch_size]
            missing = [sample["id"] not in done for sample in batch]
            if not any(missing):
                continue
            answers = self._predict(session, batch, regions)
            self.log.append(
                {"id": sample["id"], "scene_id": scene_id, **answer}
                for sample, answer, is_missing in zip(batch, answers, missing, strict=True)
                if is_missing
            )
            progress.update(sum(missing))

    def _predict(self, session: SceneSession, batch: list[dict], regions: SceneRegions) -> list[dict[str, Any]]:
        """Return the answers to samples of one scene."""
        settings, task = self.settings, self.task.task
        if not settings.is_rgb_only:
            return self.task.predict(session, batch, regions, self.max_new_tokens)
        if self.clicks:
            return describe_clicked(session, task, batch, self.clicks, self.max_new_tokens)
        if settings.finding == "words":
            return find_by_words(session, batch, self.max_new_tokens)
        return find_by_regions(session, task, batch, settings.protocol)

    def gather(self) -> list[dict[str, Any]]:
        """Return the answers of all processes in the order of the samples.

        Raises:
            RuntimeError: If some are missing.
            ValueError: If one is not what the task needs.
        """
        answers = self.log.read(self._find_fault)
        missing = [sample["id"] for sample in self.samples if sample["id"] not in answers]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len(self.samples)} answers are missing in {self.log.folder}, the first is "
                f"{missing[0]!r}. All processes must write to one folder that all of them see."
            )
        return [answers[sample["id"]] for sample in self.samples]


def score_answers(
    task: str,
    samples: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    protocol: Protocol,
    *,
    variant: str | None = None,
    meteor: bool | None = None,
    jackknife: bool = False,
) -> dict[str, Any]:
    """Return the scores of answers under a protocol; see `BenchmarkMetric`.

    `meteor` matters where a metric has it; `jackknife` is that of `summarise`. Answers of the mode "rgb_only" have
    `boxes` in the world, see `trainer.evaluation.lifting`; those of the mode "proposals" have not, and the two are not
    scored together.

    Raises:
        TypeError: If samples or answers are no sequence of mappings.
        ValueError: If task, protocol or variant is unknown, or an answer is missing, of another sample, or not what
            the task needs; the message names the sample. Also if the answers are of two modes.
    """
    check_choice("`task`", task, list(EVALUATED_TASKS))
    check_protocol(protocol)
    spec = EVALUATED_TASKS[task]
    samples, answers = check_answers(spec, samples, answers)
    pairs = [spec.metric_inputs(sample, answer, protocol) for sample, answer in zip(samples, answers, strict=True)]
    predictions, references = (list(column) for column in zip(*pairs, strict=True))
    options = {**spec.options, **({} if variant is None else {"variant": variant})}
    if meteor is not None and spec.has_meteor:
        options["meteor"] = meteor
    if jackknife:
        options["jackknife"] = jackknife
    return load_metric(task).compute(predictions=predictions, references=references, protocol=protocol, **options)


def _plain(value: Any) -> Any:
    """Return a value with None in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def run_evaluation(settings: EvaluationSettings) -> dict[str, Any] | None:
    """Answer, score under both protocols, and write `answers.jsonl`, `results.json` and the report.

    `scene_scores.json` holds the scores without each scene, and how right each answer is, for `compare_runs`.

    Returns:
        The results, in the main process; None in the others. With `answer_only` they have no scores, and are not
        written.

    Raises:
        TypeError: If `settings` are no `EvaluationSettings`.
        ValueError: If the output folder holds answers of another run (the changes are named), or the processes of a
            launcher do not know each other.
        BlockingIOError: If another run is writing into the output folder.
        FileNotFoundError: If the data lack a file that the task needs.
    """
    if not isinstance(settings, EvaluationSettings):
        raise TypeError(f"`settings` must be EvaluationSettings, got {settings!r:.100} ({type(settings).__name__}).")
    processes = join_processes()
    evaluation = Evaluation(settings, processes)
    with closing(evaluation.log):
        evaluation.answer_all()
        processes.wait_for_everyone()
        results = _write_results(evaluation) if processes.is_main_process else None
        processes.wait_for_everyone()
    return results


def _write_results(evaluation: Evaluation) -> dict[str, Any]:
    """Score the answers of all processes and write all files of the results."""
    settings, answers = evaluation.settings, evaluation.gather()
    folder = evaluation.log.folder
    lines = "".join(json.dumps(answer) + "\n" for answer in answers)
    write_text(folder / "answers.jsonl", lines)
    facts = {
        **evaluation.identity,
        "num_samples": len(answers),
        "num_scenes": len({sample["scene_id"] for sample in evaluation.samples}),
        "main_score": evaluation.task.main_score[settings.protocol],
        "variant": settings.variant or evaluation.task.options.get("variant"),
    }
    if settings.answer_only:
        return facts
    samples = evaluation.samples
    if settings.is_rgb_only:
        samples = load_truth(settings, evaluation.split, evaluation.num_frames)
        answers, unparsable = lift_answers(settings, samples, answers, evaluation.grid)
        facts |= {"unparsable": unparsable} if settings.finding == "words" else {}
    protocols: tuple[Literal["clean", "paper"], ...] = ("clean", "paper")
    scores = {
        name: score_answers(
            settings.task, samples, answers, name, variant=settings.variant, meteor=settings.meteor, jackknife=True
        )
        for name in protocols
    }
    by_scene = {name: found.pop("jackknife") for name, found in scores.items()}
    qualities = {
        sample["id"]: evaluation.task.quality(sample, answer) for sample, answer in zip(samples, answers, strict=True)
    }
    write_json(folder / SCENE_SCORES, _plain({"samples": qualities, "protocols": by_scene}), indent=None)
    versions, *later = evaluation.log.list_versions()
    made = {"versions": versions, **({"later_versions": later} if later else {})}
    results = _plain({**facts, "scores": scores, **made, "scored_with": package_versions(SCORING_PACKAGES)})
    write_json(folder / "results.json", results)
    write_report(folder, results, samples, answers, settings, evaluation.grid)
    logger.info("Wrote %s", folder / "report.html")
    return results
