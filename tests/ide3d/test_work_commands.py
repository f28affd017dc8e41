"""Commands that train, convert, export, push and measure, each on real tiny input."""

import json
import re
import shutil

import numpy as np
import pytest
from commanding import run_command
from huggingface_hub import ModelCard
from original_checkpoints import GROUND, build_model, original_weights, write_source, write_tokenizer
from safetensors.torch import load_file

from ide3d import nano_model
from processing.benchmarks.export.rooms import export_rooms
from trainer.export import is_export


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    source = write_source(tmp_path_factory.mktemp("original") / "tiny-3d-ide", original_weights(build_model()))
    write_tokenizer(source, words=GROUND, extra=["<ground>"])
    return source


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return export_rooms(tmp_path_factory.mktemp("data") / "rooms", num_scenes=1, image_size=28, num_frames=2)


class TestTraining:
    def test_a_recipe_is_trained_exported_and_exported_again(self, tiny_recipe, tmp_path):
        recipe = tiny_recipe(naming_steps=0, reading_steps=0)
        export = tmp_path / "out" / "export"
        told = run_command("train", recipe, "--max_steps", 1, "--place_samples=0").stdout
        assert told.splitlines()[-1] == str(export) and is_export(export)
        state = json.loads((tmp_path / "out" / "checkpoint-1" / "trainer_state.json").read_text())
        assert state["global_step"] == 1
        told = run_command(
            "export", tmp_path / "out" / "checkpoint-1", tmp_path / "again", "--dtype", "bfloat16"
        ).stdout
        assert told == f"{tmp_path / 'again'}\n" and is_export(tmp_path / "again")
        (dtype,) = {str(value.dtype) for value in load_file(tmp_path / "again" / "model.safetensors").values()}
        assert dtype == "torch.bfloat16"

    @pytest.mark.slow
    def test_a_plan_trains_nothing(self, tiny_recipe, tmp_path):
        told = run_command("plan", tiny_recipe(), "--per_device_train_batch_size", 1).stdout
        assert "memory of a process" in told and not (tmp_path / "out").exists()

    def test_a_dry_run_of_train_is_a_plan(self, tiny_recipe, monkeypatch):
        class Estimate:
            def as_text(self):
                return "a plan"

        monkeypatch.setattr("trainer.recipes.plan.dry_run", lambda model, data, args: Estimate())
        monkeypatch.setattr("trainer.recipes.run.run_recipe", None)
        assert run_command("train", tiny_recipe(), "--dry_run").stdout == "a plan\n"
        assert run_command("plan", tiny_recipe()).stdout == "a plan\n"
        assert run_command("train", tiny_recipe(dry_run=True)).stdout == "a plan\n"

    def test_every_argument_can_be_listed(self):
        for name in ("train", "plan"):
            told = run_command(name, "--list-arguments").stdout
            for argument in ("--model_name_or_path", "--num_rooms", "--depth_weight", "--learning_rate"):
                assert argument in told

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--num_romms", "3"), "num_romms"),
            (("--validator", "heavy"), "argument --validator: invalid choice: 'heavy'"),
            (("--max_steps", "many"), "invalid int value: 'many'"),
        ],
    )
    @pytest.mark.parametrize("name", ["train", "plan"])
    def test_wrong_arguments_are_wrong_usage(self, tiny_recipe, name, words, told):
        stderr = run_command(name, tiny_recipe(), *words, code=2).stderr
        assert stderr.splitlines()[-1].startswith(f"ide3d {name}: ") and told in stderr

    def test_a_recipe_that_is_not_there_and_arguments_that_contradict_fail(self, tiny_recipe, tmp_path):
        stderr = run_command("train", tmp_path / "absent.yaml", code=1).stderr
        assert stderr == f"ide3d train: There is no recipe {tmp_path}/absent.yaml. It is a YAML file of lines " + (
            "`argument: value`.\n"
        )
        stderr = run_command("train", tiny_recipe(teacher="stored"), code=1).stderr
        assert stderr.splitlines()[-1].startswith("ide3d train: teacher: stored needs source: benchmarks")

    def test_debug_of_a_recipe_is_not_that_of_the_command(self, tiny_recipe):
        stderr = run_command("plan", tiny_recipe(), "--debug", "nonsense", code=2).stderr
        assert "Traceback" not in stderr
        stderr = run_command("--debug", "train", tiny_recipe(teacher="stored"), code=1).stderr
        assert "Traceback" in stderr


class TestWeights:
    def test_there_and_back_again(self, original, tmp_path):
        told = run_command("convert", original, tmp_path / "converted", "--max-shard-size", "30KB").stdout
        assert "converted" in told and len(list((tmp_path / "converted").glob("model-*.safetensors"))) > 1
        told = run_command("convert", "--back", tmp_path / "converted", tmp_path / "restored").stdout
        assert told == f"The original checkpoint is in {tmp_path / 'restored'}\n"
        for file in original.glob("*.safetensors"):
            before, after = load_file(file), load_file(tmp_path / "restored" / file.name)
            assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)

    def test_a_target_that_is_there_is_left_alone(self, original, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        stderr = run_command("convert", original, tmp_path, code=1).stderr
        assert stderr.splitlines()[-1].startswith("ide3d convert: ") and str(tmp_path) in stderr
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_dry_run_of_a_push_writes_the_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr("trainer.push.HfApi", None)  # the Hub is not asked
        told = run_command("push", nano_model(), "me/rooms", "--dry-run", tmp_path / "push").stdout
        assert told == f"{tmp_path / 'push'}\n" and is_export(tmp_path / "push")
        assert 'model_id = "me/rooms"' in ModelCard.load(tmp_path / "push" / "README.md").text
        weights = "model.safetensors"
        assert (tmp_path / "push" / weights).read_bytes() == (nano_model() / weights).read_bytes()

    def test_what_cannot_be_exported_or_pushed_is_told(self, tmp_path):
        stderr = run_command("push", tmp_path, "me/rooms", code=1).stderr
        assert stderr.startswith(f"ide3d push: {tmp_path} is no export")
        stderr = run_command("export", tmp_path / "absent", tmp_path / "export", code=1).stderr
        assert stderr.startswith(f"ide3d export: There is no folder {tmp_path}/absent")


class TestMeasuring:
    def test_a_benchmark_is_answered_and_scored(self, data, tmp_path):
        words = ("--model", nano_model(), "--task", "sqa3d", "--data", data, "--num-frames", 2, "--max-new-tokens", 4)
        told = run_command("evaluate", *words, "--no-meteor", "--output", tmp_path / "out").stdout
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        name = results["main_score"]
        assert told.splitlines()[-1].startswith(f"sqa3d {name}: {results['scores']['clean'][name]:.2f}")

    def test_data_that_are_missing_are_told(self, tmp_path):
        words = (
            "--model",
            nano_model(),
            "--task",
            "sqa3d",
            "--data",
            tmp_path / "absent",
            "--output",
            tmp_path / "out",
        )
        stderr = run_command("evaluate", *words, code=1).stderr
        assert stderr.splitlines()[-1].startswith("ide3d evaluate: ") and "absent" in stderr

    def test_a_folder_is_examined(self, data, tmp_path):
        assert "scanqa" in run_command("doctor", data).stdout
        broken = shutil.copytree(data, tmp_path / "rooms")
        shutil.rmtree(broken / "scannet" / "posed_images")
        assert "frames" in run_command("doctor", broken, code=1).stdout

    def test_a_model_is_asked_about_rooms(self, tmp_path):
        output = tmp_path / "new" / "rooms.json"
        words = ("--num-rooms", 2, "--num-baseline-rooms", 3, "--reference", "word", "--output", output)
        told = run_command("rooms", "evaluate", nano_model(), *words).stdout
        result = json.loads(output.read_text())
        assert re.match(r"2 rooms of test:\n\| type +\| refers by \|", told) and result["num_rooms"] == 2
        assert {entry["reference"] for entry in result["answers"]} == {"word"} and result["table"]

    def test_rooms_are_measured(self, tmp_path):
        words = ("--num-scenes", 2, "--image-size", 32, "--num-frames", 2, "--num-proc", 1, "--style", "loft")
        told = run_command("rooms", "measure", *words, "--json", tmp_path / "rooms.json").stdout
        assert "rooms/s" in told and "bottom_row" in told
        assert json.loads((tmp_path / "rooms.json").read_text())["style"] == "loft"

    def test_env_has_what_a_report_needs(self):
        told = run_command("env").stdout
        found = json.loads(run_command("env", "--json").stdout)
        assert {"ide3d", "torch", "torchvision", "transformers", "accelerate", "datasets"} <= set(found["versions"])
        assert {"av", "torchcodec"} == set(found["video_readers"]) and {"eager", "sdpa"} <= set(found["attention"])
        assert found["threads"] >= 1 and found["nano_model"] == str(nano_model())
        for name in ("python", "devices", "attention", "threads", *found["versions"]):
            assert f"\n{name} " in f"\n{told}"


class TestGeometry:
    def test_is_stored_and_examined(self, data, tmp_path):
        scene = next(path for path in sorted((data / "scannet" / "posed_images").iterdir()))
        names = sorted(path.stem for path in scene.glob("*.jpg"))
        path = tmp_path / "arrays" / "scannet" / f"{scene.name}.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, frame_names=np.array(names), depth=np.full((len(names), 14, 14), 1.5))
        words = ("--source", "arrays", "--folder", tmp_path / "arrays", "--data-dir", data, "--num-frames", 2)
        facts = ("--name", "me", "--version", "1", "--licence", "mit", "--alignment", "affine")
        output = tmp_path / "geometry"
        words = ("geometry", *words, *facts, "--output-dir", output, "--scene-ids", f"scannet/{scene.name}")
        assert "me, licence mit, alignment affine\n" in run_command(*words).stdout
        told = run_command("doctor", output).stdout
        assert "1 scenes, 2 frames" in told and "pseudo geometry, alignment affine" in told
        assert json.loads(run_command("doctor", output, "--json").stdout)["scenes"][0]["with_depth"] == 1
        assert "has no --task" in run_command("doctor", output, "--task", "scanqa", code=2).stderr
        (output / "scannet" / f"{scene.name}.safetensors").write_bytes(
            (output / "scannet" / f"{scene.name}.safetensors").read_bytes()[:-5]
        )
        assert "cannot be used (1):" in run_command("doctor", output, code=1).stdout
