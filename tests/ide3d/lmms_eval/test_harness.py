"""Our model and tasks in the released lmms-eval, on rooms: the scores are those of our own runner."""

import importlib
import json
import math
from pathlib import Path

import pytest
import yaml

pytest.importorskip("lmms_eval", reason="needs lmms-eval in an environment of its own, see docs/lmms_eval.md")
pytest.importorskip("filelock._api", reason="lmms-eval 0.7.3 needs an older filelock, see docs/lmms_eval.md")

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

from ide3d.lmms_eval import __file__ as package
from ide3d.lmms_eval.benchmark_task import DATA_VARIABLE, read_scores
from ide3d.lmms_eval.model import IDE3DChat, cut, split_video
from ide3d.nano import nano_model
from processing.benchmarks import build_prompt
from processing.benchmarks.export.rooms import export_rooms
from trainer.evaluation import EvaluationSettings, run_evaluation
from trainer.evaluation.metrics import load_metric

BENCHMARKS = ("scanqa", "sqa3d", "scanrefer", "scan2cap")
NUM_FRAMES = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return export_rooms(
        tmp_path_factory.mktemp("harness") / "data", num_scenes=2, num_frames=NUM_FRAMES, image_size=64
    )


@pytest.fixture(scope="module")
def told(data):
    """Results of lmms-eval on the four benchmarks."""
    tasks = TaskManager(include_path=str(package).replace("__init__.py", "tasks"), include_defaults=False)
    names = [{"task": f"ide3d_{name}", "num_frames": NUM_FRAMES} for name in BENCHMARKS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(data))
        return simple_evaluate(
            "ide3d", model_args="device=cpu", tasks=names, task_manager=tasks, batch_size=64, bootstrap_iters=0
        )


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_both_harnesses_give_the_same_answers_and_scores(told, data, tmp_path, benchmark):
    settings = EvaluationSettings(
        model=str(nano_model()),
        task=benchmark,
        data=str(data),
        output=str(tmp_path),
        num_frames=NUM_FRAMES,
        meteor=False,
    )
    ours = run_evaluation(settings)
    answers = {row["id"]: row for row in map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())}
    name = f"ide3d_{benchmark}"
    assert len(told["samples"][name]) == len(answers)
    for sample in told["samples"][name]:
        own = answers[sample["doc"]["id"]]
        text = sample["filtered_resps"][0]
        assert (
            (json.loads(text)["scores"] == pytest.approx(own["scores"], abs=1e-6))
            if "scores" in own
            else text == own["text"]
        )
    scores = {key.partition(",")[0]: value for key, value in told["results"][name].items() if ":" in key}
    scores = {key: value for key, value in scores.items() if "_stderr" not in key}
    assert len(scores) >= 4
    for key, value in scores.items():
        protocol, _, score = key.partition(":")
        assert math.isfinite(value) and value == pytest.approx(ours["scores"][protocol][score], abs=1e-6)


def test_answers_to_revsi_score_as_in_its_own_task():
    """Prompts and scores of the task that the benchmark's authors wrote, on answers of every form and type."""
    theirs = importlib.import_module("lmms_eval.tasks.revsi.utils")
    task = yaml.load((Path(theirs.__file__).parent / "_default_template_yaml").read_text(), yaml.BaseLoader)
    said = ["A", "b.", "B) left", "4", "2.0 metres", "about 3", "", "0", "-1", "nan", "1e2", "4."]
    rows = [
        {"question": "Which?", "question_type": kind, "text": text, **truth}
        for kinds, truths in (
            (theirs.MCQ_QUESTION_TYPES, [{"ground_truth": "B", "options": ["A. left", "B. right"]}]),
            (theirs.NQ_QUESTION_TYPES, [{"ground_truth": number, "options": None} for number in ("4", "2.1")]),
        )
        for kind in kinds
        for truth in truths
        for text in said
    ]
    words = task["lmms_eval_specific_kwargs"]["default"]
    for row in rows:
        assert build_prompt("revsi", row) == theirs.revsi_doc_to_text(row, words)
    scored = [theirs.revsi_process_results(dict(row), [row["text"]])["overall_acc"] for row in rows]
    ours = load_metric("revsi").compute(
        predictions=[{"text": row["text"]} for row in rows],
        references=[{"text": r["ground_truth"], "question_type": r["question_type"], "scene_id": "a"} for r in rows],
        protocol="paper",
    )
    assert ours["macro"] == pytest.approx(100 * theirs.revsi_aggregate_overall(scored), abs=1e-6)
    assert ours["micro"] == pytest.approx(100 * sum(row["acc"] for row in scored) / len(scored), abs=1e-6)


def test_the_entry_point_names_the_model():
    assert get_model("ide3d") is IDE3DChat


def test_a_chat_of_another_task_has_one_video():
    messages = [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}, {"type": "text", "text": "Where?"}]}]
    video, chat = split_video(messages)
    assert video == "a.mp4" and chat[0]["content"] == [{"type": "video"}, {"type": "text", "text": "Where?"}]
    for wrong in (messages * 2, [{"role": "user", "content": "Where?"}]):
        with pytest.raises(ValueError, match="holds one video"):
            split_video(wrong)
    with pytest.raises(ValueError, match="'image'"):
        split_video([{"role": "user", "content": [{"type": "image", "url": "a.png"}]}])


def test_answers_of_other_models_find_nothing():
    assert (
        read_scores("the red chair", 3) == read_scores("[1, 2]", 3) == read_scores('{"scores": [1]}', 3) == [0, 0, 1]
    )
    assert cut("yes\nno", ["\n"]) == "yes" and cut("yes", None) == "yes"
