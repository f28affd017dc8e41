"""Runs over rooms in the layout of the benchmarks: results, resuming, refusal, several processes, reports."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from commanding import run_command
from huggingface_hub import parse_eval_result_entries
from PIL import Image
from safetensors.torch import save_file
from scene_models import build_scene_model, build_scene_processor
from yaml import safe_load

from modeling_ide3d import IDE3DForConditionalGeneration
from processing.benchmarks.export.rooms import export_rooms
from processing.benchmarks.readers.tasks import SPATIAL_TASKS
from trainer.evaluation import EvaluationSettings, compare_runs, run_evaluation
from trainer.evaluation.answer_log import AnswerLog
from trainer.evaluation.runner import split_scenes
from trainer.evaluation.tasks import EVALUATED_TASKS

REPOSITORY = Path(__file__).resolve().parents[3]
NEW_TOKENS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two rooms a split, with all kinds of files."""
    return export_rooms(tmp_path_factory.mktemp("data") / "rooms", num_scenes=2, image_size=70, num_frames=3)


@pytest.fixture
def settings(data, model_folder, tmp_path):
    """`settings(task, **changes)` of a short run."""

    def build(task="scanqa", **changes):
        fields = {"model": str(model_folder), "data": str(data), "output": str(tmp_path / task), "meteor": False}
        fields |= {"max_new_tokens": NEW_TOKENS, "batch_size": 4, **changes}
        return EvaluationSettings(task=task, **fields)

    return build


def read(folder, name="results.json"):
    return json.loads((Path(folder) / name).read_text())


@pytest.mark.parametrize("task", EVALUATED_TASKS)
def test_every_task_runs_and_says_how(settings, task):
    chosen = settings(task)
    results = run_evaluation(chosen)
    folder = Path(chosen.output)
    assert results == read(folder)
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == len({answer["id"] for answer in answers}) == results["num_samples"] > 4
    assert results["num_scenes"] == 2 and results["protocol"] == "clean"
    for key in ("model_revision", "prompt_digest", "frame_list_digest", "versions"):
        assert results[key]
    assert results["attention_vision"] == results["attention_language"] == "sdpa"
    assert (results["device"], results["kernels"]) == ("cpu", "torch")
    decodes = results["decoder"] is not None and re.fullmatch(r"av [\d.]+, libavcodec [\d.]+", results["decoder"])
    assert bool(decodes) == (task in SPATIAL_TASKS)
    assert (results["proposals"] == "pred") == (EVALUATED_TASKS[task].task.kind == "ground")
    for protocol in ("clean", "paper"):
        main = EVALUATED_TASKS[task].main_score[protocol]
        scores = results["scores"][protocol]
        assert scores["bands"][main] == [None, None] and scores[main] is not None
    index = safe_load((folder / "model_index.yml").read_text())["model-index"][0]["results"][0]
    main = results["main_score"]
    value = next(metric["value"] for metric in index["metrics"] if metric["type"] == main)
    assert value == pytest.approx(results["scores"]["clean"][main], abs=0.01)
    files = list((folder / ".eval_results").glob("*"))
    assert [file.name for file in files] == (["vsibench-test-rgb_only-clean.yaml"] if task == "vsibench" else [])
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text()
        assert main in text and results["model_revision"] in text and "too few" in text
        pictures = re.findall(r"pictures/\d+\.jpg", text)
        assert pictures
        for picture in pictures:
            with Image.open(folder / picture) as image:
                assert image.width == 3 * 320


def test_the_hub_reads_the_main_score_with_how_it_was_measured(settings):
    results = run_evaluation(settings("scanrefer", dataset_id="someone/scanrefer", protocol="paper"))
    (file,) = (Path(settings("scanrefer").output) / ".eval_results").iterdir()
    (entry,) = parse_eval_result_entries(safe_load(file.read_text()))
    assert file.name == "scanrefer-val-proposals-paper.yaml" and entry.dataset_id == "someone/scanrefer"
    assert entry.value == pytest.approx(results["scores"]["paper"]["acc@0.5"], abs=0.01)
    for fact in ("acc@0.5", "protocol paper", "mode proposals", "in 2 scenes", "attention sdpa", "float32", "cpu"):
        assert fact in entry.notes
    with pytest.raises(ValueError, match="Repo id"):
        settings(dataset_id="someone//scanrefer")


def test_answers_of_strangers_are_escaped_in_the_page(settings, monkeypatch):
    monkeypatch.setattr("trainer.session.scene_session.SceneSession.ask", lambda self, q, *a, **k: ["<b>"] * len(q))
    chosen = settings("scanqa")
    run_evaluation(chosen)
    page = (Path(chosen.output) / "report.html").read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page


@pytest.mark.parametrize("task", ["scanqa", "scanrefer"])
def test_a_run_stopped_at_any_batch_goes_on_to_the_same_result(settings, tmp_path, monkeypatch, task):
    whole = settings(task)
    run_evaluation(whole)
    append = AnswerLog.append
    stopped = dataclasses.replace(whole, output=str(tmp_path / "stopped"))
    finished = stops = 0
    for _ in range(20):
        calls = []

        def dies(log, rows, calls=calls):
            rows = list(rows)
            calls.append(rows)
            if len(calls) == 2:  # after one batch, and in the middle of the next one's second line
                with log.file.open("a") as stream:
                    stream.write("".join(json.dumps(row) + "\n" for row in rows[:1]) + '{"id": "')
                raise KeyboardInterrupt
            append(log, rows)

        monkeypatch.setattr(AnswerLog, "append", dies)
        try:
            run_evaluation(stopped)
            finished += 1
            break
        except KeyboardInterrupt:
            stops += 1
    assert finished and stops > 1
    for name in ("results.json", "answers.jsonl"):
        assert (Path(stopped.output) / name).read_bytes() == (Path(whole.output) / name).read_bytes()
    lines = (Path(stopped.output) / "answers.00000.jsonl").read_text().splitlines()
    assert len(lines) == read(whole.output)["num_samples"]


def test_a_finished_run_asks_nothing_again(settings, monkeypatch):
    run_evaluation(settings())
    monkeypatch.setattr("trainer.evaluation.runner.SceneSession", None)
    assert run_evaluation(settings()) == read(settings().output)


def test_what_changed_since_the_last_run_is_refused(settings, model_folder, tmp_path):
    run_evaluation(settings())
    other = tmp_path / "tiny"
    shutil.copytree(model_folder, other)
    build_scene_model(build_scene_processor(), seed=1).save_pretrained(other)
    changes = {
        "model_revision": {"model": str(other)},
        "prompt_digest": {"protocol": "paper"},
        "frame_list_digest": {"num_frames": 2},
        "max_new_tokens": {"max_new_tokens": 5},
        "attention_vision": {"attention": "eager"},
    }
    for key, change in changes.items():
        with pytest.raises(ValueError, match=rf"answers of another run(.|\n)*  {key}: "):
            run_evaluation(settings(**change))


def test_a_run_that_went_on_with_other_libraries_says_so(settings, monkeypatch, caplog):
    append = AnswerLog.append

    def dies(log, rows):
        append(log, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AnswerLog, "append", dies)
        patch.setattr("trainer.evaluation.runner.package_versions", lambda names: {"torch": "0.1"})
        run_evaluation(settings())
    results = run_evaluation(settings())
    assert "torch 0.1, now 2" in caplog.text
    first, (later,) = results["versions"], results["later_versions"]
    assert first["torch"] == "0.1" and later["torch"] == version("torch")
    report = (Path(settings().output) / "report.md").read_text()
    assert "torch version, later answers 1" in report


def test_runs_with_two_kinds_of_attention_are_compared(settings, tmp_path):
    folders = [str(tmp_path / name) for name in ("sdpa", "eager")]
    for folder in folders:
        run_evaluation(settings("multi3drefer", attention=Path(folder).name, output=folder))
    found = compare_runs(folders)
    assert found.differences == {
        "attention_vision": ["sdpa", "eager"],
        "attention_language": ["sdpa", "eager"],
    }
    results = read(folders[1])
    assert found.num_samples == results["num_samples"] and found.main_score == "f1@0.5"
    row = next(row for row in found.scores if (row.score, row.run) == ("f1@0.5", "eager"))
    assert row.value == results["scores"]["clean"]["f1@0.5"] and row.band is None


def change_tokenizer(model, data):
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    path.write_text(json.dumps(content))


def change_picture(model, data):
    picture = sorted(data.glob("scannet/posed_images/room0003_00/*.jpg"))[1]
    Image.new("RGB", Image.open(picture).size, "red").save(picture)


def change_depth(model, data):
    picture = sorted(data.glob("scannet/posed_images/room0003_00/*.png"))[0]
    depth = np.asarray(Image.open(picture)).copy()
    depth[0, 0] += 1
    Image.fromarray(depth).save(picture)


@pytest.mark.parametrize(
    ("task", "change", "key"),
    [
        ("scanqa", change_tokenizer, "tokenizer_digest"),
        ("scanqa", change_picture, "scene_files_digest"),
        ("scanrefer", change_depth, "scene_files_digest"),
    ],
)
def test_other_files_under_the_same_names_are_another_run(settings, data, model_folder, tmp_path, task, change, key):
    own, model = tmp_path / "data", tmp_path / "tiny"
    shutil.copytree(data, own)
    shutil.copytree(model_folder, model)
    chosen = settings(task, data=str(own), model=str(model), scenes=scenes_of(own, task))
    run_evaluation(chosen)
    change(model, own)
    with pytest.raises(ValueError, match=rf"answers of another run(.|\n)*  {key}: "):
        run_evaluation(chosen)


def scenes_of(data, task):
    """All scenes of the split, which are read."""
    records = json.loads(next((data / "processed").glob(f"{task}*_val_llava_style.json")).read_text())
    return tuple(sorted({record["video"] for record in records}))


def test_a_second_run_into_a_folder_is_refused_while_the_first_runs(settings, monkeypatch):
    def both(log, rows):
        with pytest.raises(BlockingIOError, match="is being written by another evaluation"):
            run_evaluation(settings())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AnswerLog, "append", both)
        run_evaluation(settings())
    assert run_evaluation(settings()) == read(settings().output)


@pytest.mark.parametrize(
    ("task", "row", "told"),
    [
        ("scanqa", {"id": "no such"}, "'no such' is no sample of this run"),
        ("scanqa", {"text": None}, 'must have a "text"'),
        ("scanrefer", {"scores": None}, 'must have "scores", .* finite numbers'),
        ("scanrefer", {"scores": [0.5]}, 'must have "scores", .* finite numbers'),
        ("scanrefer", {"scores": "nan"}, 'must have "scores", .* finite numbers'),
    ],
)
def test_stored_answers_that_no_run_wrote_are_named(settings, task, row, told):
    chosen = settings(task)
    run_evaluation(chosen)
    file = Path(chosen.output) / "answers.00000.jsonl"
    first, *others = (json.loads(line) for line in file.read_text().splitlines())
    if row.get("scores") == "nan":
        row = {"scores": [math.nan] * len(first["scores"])}
    file.write_text("".join(json.dumps(entry) + "\n" for entry in [*others, {**first, **row}]))
    with pytest.raises(ValueError, match=rf"answers.00000.jsonl, line {len(others) + 1}: .*{told}"):
        run_evaluation(chosen)


def test_scenes_without_candidates_are_told(settings, data, tmp_path, caplog):
    own = tmp_path / "data"
    shutil.copytree(data, own)
    boxes = own / "metadata" / "scannet_val_pred_box.json"
    scene, *_ = content = json.loads(boxes.read_text())
    boxes.write_text(json.dumps({**content, scene: []}))
    results = run_evaluation(settings("scanrefer", data=str(own)))
    assert results["num_scenes"] == 2
    assert f"1 scenes have no candidate boxes, the first is {scene}" in caplog.text and str(boxes) in caplog.text


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
def test_an_adapter_is_a_model_and_depends_on_its_base(settings, model_folder, tmp_path):
    peft = pytest.importorskip("peft")
    base, folder = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(model_folder, base)
    model = IDE3DForConditionalGeneration.from_pretrained(base)
    targets = r"model\.language_model\..*\.(q_proj|down_proj)"
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(folder)
    assert not (folder / "processor_config.json").exists()  # PEFT saves no processor: that of the base is meant
    plain = run_evaluation(settings())
    adapted = run_evaluation(settings(model=str(folder), output=str(tmp_path / "adapted")))
    assert adapted["model_revision"].endswith(plain["model_revision"])
    said, plain_said = (
        (Path(path) / "answers.jsonl").read_text() for path in (tmp_path / "adapted", settings().output)
    )
    assert said != plain_said
    build_scene_model(build_scene_processor(), seed=1).save_pretrained(base)
    with pytest.raises(ValueError, match="model_revision"):
        run_evaluation(settings(model=str(folder), output=str(tmp_path / "adapted")))


def test_a_model_without_a_processor_is_named(settings, model_folder, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(model_folder, folder)
    (folder / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no processor_config.json in .*bare"):
        run_evaluation(settings(model=str(folder)))


def test_a_prompt_with_other_words_is_refused(settings, monkeypatch):
    run_evaluation(settings("vsibench"))
    monkeypatch.setattr("processing.benchmarks.prompts._VSI_START", "This is a video.\n")
    with pytest.raises(ValueError, match="prompt_digest"):
        run_evaluation(settings("vsibench"))


def test_missing_data_and_wrong_settings_are_named(settings, tmp_path):
    with pytest.raises(FileNotFoundError, match="scanqa_val_llava_style"):
        run_evaluation(settings(data=str(tmp_path)))
    with pytest.raises(ValueError, match="`task` must be one of"):
        settings("nr3d")
    with pytest.raises(ValueError, match="`batch_size` must be a whole number of at least 1"):
        settings(batch_size=0)
    with pytest.raises(ValueError, match="The scene takes .* MB"):
        run_evaluation(settings(max_memory=1000))


def test_regions_may_come_from_poses_alone(settings, tmp_path):
    by_depth = run_evaluation(settings("scanrefer"))
    by_poses = run_evaluation(settings("scanrefer", regions="poses", output=str(tmp_path / "poses")))
    assert (by_depth["region_source"], by_poses["region_source"]) == ("depth", "poses")
    scores = [json.loads(line)["scores"] for line in (tmp_path / "poses" / "answers.jsonl").read_text().splitlines()]
    assert all(-1 <= value <= 1 for row in scores for value in row)


def test_frames_without_a_pose_stop_the_run_or_are_left_out(settings, data, tmp_path):
    holed = tmp_path / "holed"
    shutil.copytree(data, holed)
    scene = json.loads((holed / "processed" / "scanrefer_vg_val_llava_style.json").read_text())[0]["video"]
    pose = sorted((holed / scene.replace("/", "/posed_images/")).glob("0*.txt"))[1]
    pose.write_text(pose.read_text().replace(pose.read_text().split()[0], "-inf", 1))
    with pytest.raises(ValueError, match="finite|valid pose"):
        run_evaluation(settings("scanrefer", data=str(holed)))
    left = run_evaluation(settings("scanrefer", data=str(holed), skip_invalid_poses=True, output=str(tmp_path / "s")))
    assert left["skip_invalid_poses"] is True and left["num_samples"] > 4


def test_questions_open_frames_alone(settings, data, tmp_path):
    """Of ScanQA's scenes nothing is read but pictures: depth and poses may be missing or broken."""
    bare = tmp_path / "bare"
    shutil.copytree(data, bare)
    for file in [*bare.rglob("*.png"), *bare.rglob("*.txt"), *bare.rglob("*.pkl")]:
        file.write_bytes(b"broken")
    broken = run_evaluation(settings(data=str(bare), output=str(tmp_path / "broken")))
    assert broken["scores"] == run_evaluation(settings())["scores"]


def test_scenes_are_split_by_load():
    loads = {"a": 10, "b": 1, "c": 1, "d": 8, "e": 1}
    shares = split_scenes(loads, 2)
    assert sorted(scene for share in shares for scene in share) == sorted(loads)
    assert max(sum(loads[scene] for scene in share) for share in shares) == 11
    assert split_scenes(loads, 1)[0][0] == "a"
    assert [len(share) for share in split_scenes({"a": 1}, 3)] == [1, 0, 0]


def test_the_command_line_names_its_folder(monkeypatch):
    runs = []
    monkeypatch.setattr("trainer.evaluation.runner.run_evaluation", runs.append)
    run_command("evaluate", "--model", "m", "--task", "sqa3d", "--data", "d", "--max-memory", 2)
    (given,) = runs
    assert given.output == "outputs/evaluation/sqa3d-test-clean"
    assert given.max_memory == 2 * 1024**3 and given.meteor is None


def start(chosen, *launcher):
    """The command in processes of its own."""
    command = [sys.executable, *launcher, "-m", "trainer.evaluation", "--no-meteor"]
    for key in ("model", "task", "data", "output", "batch_size", "max_new_tokens"):
        command += [f"--{key.replace('_', '-')}", str(getattr(chosen, key))]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_processes_give_the_result_file_of_one(settings, tmp_path):
    one = settings("scanrefer")
    run_evaluation(one)
    two = dataclasses.replace(one, output=str(tmp_path / "two"))
    process = start(
        two, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0"
    )
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    written = [path for path in Path(two.output).glob("answers.0*.jsonl") if path.stat().st_size]
    assert len(written) == 2
    for name in ("results.json", "report.md"):
        assert (Path(two.output) / name).read_bytes() == (Path(one.output) / name).read_bytes()
    ours, theirs = ((Path(run.output) / "answers.jsonl").read_text().splitlines() for run in (two, one))
    for row, other in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        assert row.pop("scores") == pytest.approx(other.pop("scores"), abs=1e-6)  # rounding of float32
        assert row == other


@pytest.mark.slow
def test_a_killed_process_goes_on(settings, tmp_path):
    whole = settings("scanqa")
    run_evaluation(whole)
    killed = dataclasses.replace(whole, output=str(tmp_path / "killed"), batch_size=1)
    log = Path(killed.output) / "answers.00000.jsonl"
    process = start(killed)
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    answered = log.read_text().count("\n")
    assert 0 < answered < read(whole.output)["num_samples"]
    process = start(killed)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert (Path(killed.output) / "answers.jsonl").read_text() == (Path(whole.output) / "answers.jsonl").read_text()


@pytest.mark.parametrize(("task", "weight"), [("scanrefer", "grounding_head.no_object"), ("scanqa", "lm_head.weight")])
def test_scores_that_are_not_finite_stop_the_run_with_the_sample(settings, model_folder, tmp_path, task, weight):
    folder = tmp_path / "broken"
    shutil.copytree(model_folder, folder)
    model = IDE3DForConditionalGeneration.from_pretrained(folder)
    model.get_parameter(weight).data[0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"NaN or Inf for \['sample \S+'"):
        run_evaluation(settings(task, model=str(folder), output=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_model_without_half_of_its_weights_is_not_scored(settings, model_folder, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(model_folder, folder)
    model = IDE3DForConditionalGeneration.from_pretrained(folder)
    half = dict(sorted(model.state_dict().items())[::2])
    save_file({key: value.clone() for key, value in half.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks .* weights of IDE3DForConditionalGeneration"):
        run_evaluation(settings(model=str(folder)))
