import json
import re

import numpy as np
import pytest
import torch
from commanding import run_command
from exporting import build_model, build_processor
from painted_scenes import painted_scene
from transformers import AutoModel, SiglipImageProcessor, SiglipVisionConfig

from processing.benchmarks.export.rooms import export_rooms
from trainer.evaluation.probes import run
from trainer.evaluation.probes.tables import format_table, run_probes, score_correspondence
from trainer.evaluation.probes.token_sources import IDE3DTokens


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny model of ours and of a tiny tower."""
    folder = tmp_path_factory.mktemp("models")
    processor = build_processor()
    build_model(processor, seed=1).save_pretrained(folder / "ours")
    processor.save_pretrained(folder / "ours")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipVisionConfig(**sizes, image_size=32, patch_size=8, vision_use_head=False)
    AutoModel.from_config(config).save_pretrained(folder / "tower")
    SiglipImageProcessor().save_pretrained(folder / "tower")
    return folder


def test_every_layer_has_every_probe():
    processor = build_processor()
    source = IDE3DTokens(build_model(processor), processor, ["vision.2"])
    layers = ["vision.1", "vision.2", "language.1"]
    results = run_probes(source, [painted_scene(index) for index in range(15)], layers)
    assert list(results) == layers
    assert [result["read_by_losses"] for result in results.values()] == [False, True, False]
    assert [result["position"] is None for result in results.values()] == [True, True, False]
    assert [result["grid"] for result in results.values()] == [[5, 5], [5, 5], [3, 3]]
    for result in results.values():
        assert sum(result["scenes"].values()) == 15
        assert sum(result["tokens"].values()) == 15 * 3 * np.prod(result["grid"])
        for probe in ("depth", "correspondence", "information"):
            for entry in result[probe].values():
                low, high = entry["interval"]
                assert entry["value"] is None or low <= high
    # The constants of the place do not depend on the layer.
    first, second = results["vision.1"], results["vision.2"]
    assert first["depth"]["position_abs_rel"] == second["depth"]["position_abs_rel"]
    assert first["information"]["entropy"] == second["information"]["entropy"]
    tables = format_table(results).split("\n\n")
    assert len(tables) == 3
    for table in tables:
        starts = [line.split()[1:3] for line in table.splitlines() if not line.startswith("|--")]
        assert [start[0] for start in starts] == ["layer", "vision.1", "vision.2*", "language.1", "place", "place"]
        assert [start[1] for start in starts[-2:]] == ["5x5", "3x3"]
    assert f"{first['depth']['abs_rel']['value']:.3f}" in tables[0].splitlines()[2]
    assert f"{first['depth']['position_abs_rel']['value']:.3f}" in tables[0].splitlines()[5]
    position = results["language.1"]["position"]
    assert tables[0].splitlines()[4].count("[") == 4 and tables[0].splitlines()[2].count("[") == 3
    assert f"{position['position_within_half_metre']['value']:.3f}" in tables[0].splitlines()[6]


def test_layers_that_nobody_can_tell_about_have_no_star():
    processor = build_processor()
    scenes = [painted_scene(index) for index in range(6)]
    results = run_probes(IDE3DTokens(build_model(processor), processor), scenes, ["vision.0"])
    assert results["vision.0"]["read_by_losses"] is None
    assert "*" not in format_table(results)


def test_too_few_scenes_raise():
    processor = build_processor()
    with pytest.raises(ValueError, match="at least 6 scenes .* got 3"):
        run_probes(IDE3DTokens(build_model(processor), processor), [painted_scene(index) for index in range(3)])


def test_shares_of_correspondence_are_over_tokens_of_all_scenes():
    names = ("hits", "same_place", "chance", "queries", "moved_hits", "moved_chance", "moved_queries")
    matches = {
        "a": dict(zip(names, (3, 6, 1.2, 12, 1, 0.6, 6), strict=True)),
        "b": dict(zip(names, (4, 4, 0.4, 4, 0, 0, 0), strict=True)),
        "nothing is seen twice": dict.fromkeys(names, 0),
    }
    found = score_correspondence(matches)
    values = {name: entry["value"] for name, entry in found.items()}
    assert values == pytest.approx(
        {"matched": 7 / 16, "same_place": 10 / 16, "chance": 0.1, "moved_matched": 1 / 6, "moved_chance": 0.1}
    )
    assert found["matched"]["interval"] == [None, None], "tokens of two scenes have a match"
    more = {f"{name}{index}": sums for index in range(3) for name, sums in matches.items()}
    low, high = score_correspondence(more)["matched"]["interval"]
    assert 0 < low < 7 / 16 < high < 1
    assert score_correspondence(more)["moved_matched"]["interval"] == [None, None], "three scenes have one that moved"
    assert score_correspondence({"one": dict.fromkeys(names, 0)})["matched"] == {
        "value": None,
        "interval": [None, None],
    }


def probe(models, model, output, *words):
    """Run the command; what it wrote and what it told."""
    told = run_command("probe", "--model", models / model, *words, "--output", output)
    return json.loads(output.read_text()), told.stdout + told.stderr


def test_command_on_rooms(models, tmp_path, caplog):
    words = ["--num-rooms", 6, "--num-frames", 2, "--room-size", 32]
    words += ["--layers", "vision.2", "language.2", "--read-by-losses", "vision.2"]
    result, told = probe(models, "ours", tmp_path / "new" / "probes.json", *words)
    assert result["settings"]["num_rooms"] == 6
    assert result["layers"]["vision.2"]["read_by_losses"] and result["layers"]["language.2"]["position"]
    assert re.search(r"^\| vision.2\* +\| \d\.\d+ \[", told, re.MULTILINE)
    assert "2 held-out scenes of 6" in told and "Take more scenes" in caplog.text
    assert result["held_out_layers"] == ["language.2"]
    again, _ = probe(models, "ours", tmp_path / "again.json", *words)
    assert again["layers"] == result["layers"]
    other, _ = probe(models, "ours", tmp_path / "random.json", *words, "--random-weights")
    assert other["layers"]["vision.2"]["depth"]["abs_rel"] != result["layers"]["vision.2"]["depth"]["abs_rel"]
    same = [run["layers"]["vision.2"]["depth"]["position_abs_rel"] for run in (other, result)]
    assert same[0] == same[1]


def test_command_of_a_tower_on_a_folder_in_the_public_layout(models, tmp_path):
    export_rooms(tmp_path / "data", num_scenes=2, image_size=40, num_frames=3)
    words = ["--data", tmp_path / "data", "--num-frames", 3]
    result, _ = probe(models, "tower", tmp_path / "probes.json", *words)
    assert list(result["layers"]) == ["vision.0", "vision.1", "vision.last"]
    assert result["held_out_layers"] is None
    assert all(sum(layer["scenes"].values()) == 6 for layer in result["layers"].values())
    scenes = [f"scannet/{path.name}" for path in sorted((tmp_path / "data" / "scannet" / "posed_images").iterdir())]
    words += ["--model", models / "tower", "--scenes", *scenes[:4], "--output", tmp_path / "few.json"]
    assert "at least 6 scenes" in run_command("probe", *words, code=1).stderr
    assert not (tmp_path / "few.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "vision.99"], "no layers"),
        (["--data", "nowhere"], "no scene in nowhere"),
        (["--image-size", "64"], "leave `image_size` out"),
    ],
)
def test_command_ends_with_what_is_wrong(models, tmp_path, words, message):
    words = ["--model", models / "ours", "--output", tmp_path / "probes.json", *words]
    assert message in run_command("probe", *words, code=1).stderr


def test_no_room_at_all_is_wrong_usage(models):
    words = ["--model", models / "ours", "--num-rooms", 0]
    assert "Invalid value for '--num-rooms'" in run_command("probe", *words, code=2).stderr


def test_an_option_alone_says_that_no_loss_reads_a_layer(monkeypatch):
    seen = []
    monkeypatch.setattr(run, "probe_model", seen.append)
    monkeypatch.setattr(run, "describe_probes", lambda result: "")
    for words in ((), ("--read-by-losses",), ("--read-by-losses", "--seed", 1), ("--read-by-losses", "a", "b")):
        run_command("probe", "--model", "any", *words)
    assert [settings.read_by_losses for settings in seen] == [None, (), (), ("a", "b")]


def test_scenes_without_a_folder_are_refused():
    words = ["--model", "any", "--scenes", "scannet/scene0000_00"]
    assert "give it as --data" in run_command("probe", *words, code=2).stderr
    with pytest.raises(ValueError, match="give it as --data"):
        run.ProbeSettings(model="any", scenes=("a",))
