"""The study of a model that is not ours: fair arms, answers read where they were taught, runs that go on."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration, Trainer

from examples.emergence import foreign, foreign_host
from examples.emergence.foreign import ForeignStudy, HostSizes
from examples.emergence.foreign_host import VIDEO, WORDS, HostCollator, QuestionSteps, RoomSteps, build_host
from examples.emergence.questions import read_asked
from examples.emergence.rooms import RoomArrays
from examples.emergence.scores import judge

TINY = ForeignStudy(
    sizes=HostSizes(image_size=32, hidden_size=48, vision_layers=4, text_layers=1),
    num_rooms=6,
    labelled_rooms=3,
    num_frames=2,
    scored={"validation": (0, 6), "test": (6, 6)},
    pool_steps=2,
    pool_batch=2,
    question_steps=2,
    question_batch=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign")
    foreign.prepare(TINY, "validation", path)
    return path


@pytest.fixture
def asked(folder):
    return read_asked(folder / "asked" / "validation")


@pytest.mark.slow
def test_both_arms_have_the_same_first_weights_data_and_order(folder, tmp_path, monkeypatch):
    (tmp_path / "rooms").symlink_to(folder / "rooms")
    seen, original = {}, Trainer.training_step

    def record(trainer, model, inputs, *rest):
        first = {name: weight.clone() for name, weight in model.state_dict().items() if "supervision" not in name}
        seen[arm].append((first, inputs["input_ids"], inputs["labels"], inputs["pixel_values_videos"], [*inputs]))
        return original(trainer, model, inputs, *rest)

    monkeypatch.setattr(Trainer, "training_step", record)
    for arm in foreign.ARMS:
        seen[arm] = []
        foreign.train_run(TINY, arm, 1, tmp_path)
    assert len(seen["all"]) == len(seen["exposure"]) == TINY.pool_steps + TINY.question_steps
    for ours, theirs in zip(seen["all"], seen["exposure"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[1:4], theirs[1:4], strict=True))
    before, after = ((seen["all"][step][0], seen["exposure"][step][0]) for step in (0, 1))
    assert all(torch.equal(before[0][name], before[1][name]) for name in before[1])
    changed = {name for name in after[1] if not torch.equal(after[0][name], after[1][name])}
    assert any("visual.blocks" in name for name in changed), "the geometry terms train the tower"
    assert "depth" in seen["all"][0][4] and "depth" not in seen["exposure"][0][4]
    assert "depth" not in seen["all"][-1][4], "questions come without geometry"


def test_the_trained_model_is_itself_and_its_tower_is_frozen_in_questions(folder, tmp_path):
    (tmp_path / "rooms").symlink_to(folder / "rooms")
    model, phases = foreign.train_run(TINY, "all", 1, tmp_path)
    assert type(model) is Qwen3VLForConditionalGeneration
    assert set(model.state_dict()) == set(build_host(TINY.sizes, 0).state_dict())
    pooled = foreign.load_file(tmp_path / "runs" / "seed1-all" / "pool.safetensors")
    same = {name for name, weight in model.state_dict().items() if torch.equal(weight, pooled[name])}
    assert {name for name in pooled if name.startswith("model.visual.")} <= same
    assert not {name for name in pooled if "language_model.layers" in name} <= same
    assert phases["pool"]["steps"] == TINY.pool_steps
    assert len(phases["pool"]["terms"]) == TINY.pool_steps and "terms" not in phases["questions"]
    assert all(0 < step["loss_depth"] and 0 < step["loss_distillation"] for step in phases["pool"]["terms"])


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_behind_its_pool_phase(folder, tmp_path, monkeypatch):
    (tmp_path / "rooms").symlink_to(folder / "rooms")
    whole, _ = foreign.train_run(TINY, "all", 1, tmp_path)
    monkeypatch.setattr(foreign, "attach_terms", lambda *_: pytest.fail("the pool phase is done"))
    again, _ = foreign.train_run(TINY, "all", 1, tmp_path)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_labels_stand_behind_the_cells_that_they_name(folder):
    rooms = RoomArrays(folder / "rooms" / "train")
    sample = RoomSteps(rooms, 9, seed=0)[4]
    batch = HostCollator(TINY.sizes)([sample])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    places = (ids == VIDEO).nonzero().flatten()
    names = {number: word for word, number in WORDS.items()}
    said = [names.get(int(label), "") for label in labels[places + 1]]
    assert said == sample["words"].reshape(-1).tolist()
    assert (labels != -100).sum() == sum(map(bool, said))
    assert batch["video_grid_thw"].tolist() == [[2, 4, 4]] and len(places) == 2 * 4 * 4
    assert names[int(ids[0])] == sample["prompt"]


def test_answers_that_were_taught_exactly_are_right(asked, monkeypatch):
    """A model that says the labels of `answer_words` is right, so reading and teaching agree."""
    rng = np.random.default_rng(0)

    def say(**batch):
        prompt = {number: word for word, number in WORDS.items()}[int(batch["input_ids"][0, 0])]
        logits = torch.zeros(*batch["input_ids"].shape, len(WORDS) + 5)
        for row, sample in enumerate(asked):
            words = foreign_host.answer_words(sample, prompt, rng, 0.0).reshape(-1)
            places = (batch["input_ids"][row] == VIDEO).nonzero().flatten()
            for place, word in zip(places, words, strict=True):
                if word:
                    logits[row, place, WORDS[word]] = 9.0
        return type("Output", (), {"logits": logits})

    answers = foreign_host.read_answers(say, HostCollator(TINY.sizes), asked)
    judged = [
        judge(sample["questions"][place], text)
        for sample, own in zip(asked, answers, strict=True)
        for place, text in own.items()
    ]
    assert {name for entry in judged for name in entry} >= {"position_50", "distance", "colour"}
    shared = sum(not all(entry.values()) for entry in judged)  # objects that share a cell: the last one names it
    assert shared < 0.2 * len(judged)


def test_question_steps_ask_what_the_view_has_and_jitter_numbers(folder):
    samples = foreign.sample_labelled(TINY, 1)
    steps = QuestionSteps(samples, 40, seed=3, jitter=0.2)
    again = QuestionSteps(samples, 40, seed=3, jitter=0.2)
    prompts = {steps[visit]["prompt"] for visit in range(40)}
    assert prompts == {"x?", "y?", "z?", "distance?", "colour?"}
    assert all((steps[visit]["words"] == again[visit]["words"]).all() for visit in range(40))
    other = dataclasses.replace(TINY)
    assert len(foreign.sample_labelled(other, 2)) and foreign.sample_labelled(other, 2)[0]["scene_id"]


@pytest.mark.slow
def test_the_command_keeps_results_and_does_not_redo_them(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(foreign, "ForeignStudy", lambda: TINY)
    keep = tmp_path / "kept.json"
    words = ["--output", str(folder), "--keep", str(keep), "--seeds", "1", "2"]
    found = foreign.main(words)
    assert found["seeds"] == [1, 2] and found["position_50"]["questions"] > 0
    assert len(found["distance"]["per_seed"]) == 2 and found["distance"]["seed_interval"] is not None
    kept = json.loads(keep.read_text())
    assert [(run["arm"], run["seed"]) for run in kept["runs"]] == [
        (arm, seed) for seed in (1, 2) for arm in ("exposure", "all")
    ]
    monkeypatch.setattr(foreign, "train_run", lambda *_: pytest.fail("all runs are done"))
    assert foreign.main([*words, "--report-only"]) == found
    with caplog.at_level("INFO"):
        assert foreign.main(words) == found
    assert "3D centre within 0.5 m" in caplog.text


def test_the_loss_of_words_is_what_the_terms_leave():
    history = [{"step": step, "loss": loss} for step, loss in ((1, 8.0), (2, 4.0))]
    pool = {"history": history, "cpu_seconds": 7.0, "terms": [{"loss_depth": 2.0}, {"loss_depth": 0.5}]}
    run = {"arm": "all", "seed": 3, "phases": {"pool": pool, "questions": {"cpu_seconds": 9.0}}}
    alone = {**run, "arm": "exposure", "phases": {**run["phases"], "pool": {**pool, "terms": []}}}
    table = foreign.format_learning([run, alone], {"loss_depth": 3.0, "loss_overlap_l1": 0.0}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert cells[0] == ["`exposure`, seed 3", "8.00 to 4.00", "", "7", "9"]
    assert cells[1] == ["`all`, seed 3", "2.00 to 2.50", "2.00 to 0.50", "7", "9"]


def test_results_of_other_questions_are_not_compared():
    run = {"seed": 1, "hits": dict.fromkeys(foreign.SCORED, "10"), "counts": dict.fromkeys(foreign.SCORED, "11")}
    other = {**run, "arm": "all", "counts": dict.fromkeys(foreign.SCORED, "12")}
    with pytest.raises(ValueError, match="other questions"):
        foreign.compare_arms([{**run, "arm": "exposure"}, other])
    with pytest.raises(ValueError, match="No seed has both arms"):
        foreign.compare_arms([{**run, "arm": "all"}])
    same = foreign.compare_arms([{**run, "arm": "exposure"}, {**run, "arm": "all"}])
    assert same["distance"]["value"] == 0 and same["distance"]["all"] == [0.5]
