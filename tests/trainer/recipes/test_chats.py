"""Training by a recipe on files of chats: what is learned, how a stopped run goes on, and what two processes read."""

import hashlib
import json
import shutil

import pytest
from chat_files import mixed_rows, write_media, write_rows
from safetensors.torch import load_file
from scene_models import build_scene_model, build_scene_processor

from trainer.data import chat_samples
from trainer.data.chat_samples import read_sample
from trainer.loop import chat_stream
from trainer.recipes import read_recipe, train
from trainer.recipes.idle import list_idle

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Media, two files of chats about them, and a tiny checkpoint."""
    folder = write_media(tmp_path_factory.mktemp("chats"))
    rows = mixed_rows()
    write_rows(folder / "train.jsonl", rows[:4])
    write_rows(folder / "more.json", rows[4:])
    write_rows(folder / "validation.parquet", rows[:1])
    processor = build_scene_processor()
    build_scene_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder


@pytest.fixture
def words(folder):
    """Command-line words of a short training of chats."""
    given = {
        "model_name_or_path": folder / "model",
        "source": "chats",
        "chats": [folder / "train.jsonl", folder / "more.json"],
        "num_frames": 2,
        "max_steps": 4,
        "save_steps": 1,
        "per_device_train_batch_size": 2,
    }

    def build(**changes) -> list[str]:
        words: list[str] = []
        for name, value in {**given, **changes}.items():
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        return words

    return build


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "chats.yaml").write_text(
        "use_cpu: true\nsave_strategy: steps\nlogging_steps: 1\nlearning_rate: 1.0e-3\nreport_to: none\n"
        "disable_tqdm: true\nvalidator: light\nteacher: point_map\n"
    )
    return tmp_path / "chats.yaml"


def digests(folder):
    names = [path for path in folder.rglob("*") if path.suffix == ".safetensors"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


def losses_of(folder, after=0):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [
        {name: value for name, value in entry.items() if name.startswith("loss")}
        for entry in history
        if "loss" in entry and entry["step"] > after
    ]


def test_a_model_is_trained_evaluated_and_exported(run_train, recipe, words, folder, tmp_path):
    output = tmp_path / "out"
    run_train(recipe, *words(output_dir=output, validation_chats=folder / "validation.parquet"))
    losses = losses_of(output / "checkpoint-4")
    assert len(losses) == 4 and all(entry["loss_language"] > 0 for entry in losses)
    assert any(entry["loss_depth"] > 0 for entry in losses)  # of the scan
    before, after = (
        load_file(folder / "model" / "model.safetensors"),
        load_file(output / "export" / "model.safetensors"),
    )
    assert any(not before[name].equal(after[name]) for name in after)


@pytest.mark.parametrize("streaming", [False, True], ids=["table", "stream"])
def test_a_stopped_run_goes_on_as_the_undisturbed(run_train, recipe, words, tmp_path, monkeypatch, streaming):
    """Byte for byte, from the middle of an epoch and across its border; the media of steps before stay closed."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = {"max_steps": 5, "streaming": streaming, "per_device_train_batch_size": 1}
    options["gradient_accumulation_steps"] = 2
    run_train(recipe, *words(output_dir=whole, **options))
    resumed.mkdir()
    shutil.copytree(whole / "checkpoint-2", resumed / "checkpoint-2")
    opened = []
    for module in (chat_samples, chat_stream):
        monkeypatch.setattr(
            module, "read_sample", lambda row, *given, **read: opened.append(row) or read_sample(row, *given, **read)
        )
    run_train(recipe, *words(output_dir=resumed, **options))
    assert len(opened) in (6, 7)  # two rows for each of three steps, and what is fetched ahead
    expected = digests(whole / "checkpoint-5")
    assert len(expected) >= 2 and digests(resumed / "checkpoint-5") == expected
    assert losses_of(resumed / "checkpoint-5", 2) == losses_of(whole / "checkpoint-5", 2)
    assert digests(resumed / "export") == digests(whole / "export")
    history = [json.loads((run / "checkpoint-5" / "trainer_state.json").read_text()) for run in (whole, resumed)]
    assert history[0]["epoch"] == history[1]["epoch"]


def test_a_stream_learns_from_every_row_of_an_epoch(run_train, recipe, words, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        chat_stream, "read_sample", lambda row, *given, **read: opened.append(row) or read_sample(row, *given, **read)
    )
    run_train(recipe, *words(output_dir=tmp_path / "out", max_steps=3, streaming=True))
    assert len({row["where"] for row in opened[:6]}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chats": "no.jsonl"}, "no.jsonl does not exist"),
        ({"teacher": "stored"}, "teacher: stored needs source: benchmarks; chats have no stored features"),
    ],
)
def test_refusals(recipe, words, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(*read_recipe(recipe, words(**changes)))


def test_needs(recipe, words):
    with pytest.raises(ValueError, match="streaming: true needs max_steps"):
        train(*read_recipe(recipe, words(max_steps=-1, streaming=True)))
    with pytest.raises(ValueError, match="set auto_find_batch_size: false"):
        train(*read_recipe(recipe, words(streaming=True, auto_find_batch_size=True)))
    model, data, args = read_recipe(recipe, words())
    model.model_name_or_path = None
    with pytest.raises(ValueError, match="source: chats needs model_name_or_path"):
        train(model, data, args)
    model, data, args = read_recipe(recipe, words())
    data.chats = []
    with pytest.raises(ValueError, match="source: chats needs chats"):
        train(model, data, args)


def test_arguments_of_other_sources_are_named(recipe, words):
    arguments = read_recipe(recipe, words(regions="poses", num_rooms=3, data_dir="x", skip_invalid_poses=True))
    assert list_idle(*arguments[:2]) == dict.fromkeys(("num_rooms", "regions"), "source is chats")
    of_rooms = read_recipe(recipe, ["--chats", "a.json", "--data_dir", "x"])
    assert list_idle(*of_rooms[:2]) == dict.fromkeys(("data_dir", "chats"), "source is rooms")
