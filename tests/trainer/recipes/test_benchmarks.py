"""Training by the recipes of the paper, on a tiny converted checkpoint and drawn rooms in the public layout."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from original_checkpoints import GROUND, build_model, original_weights, without, write_source, write_tokenizer
from safetensors.torch import load_file
from transformers import AutoModel

from modeling_ide3d.convert_llava_qwen import convert_checkpoint
from processing.benchmarks.export.rooms import export_rooms
from trainer.export import export_checkpoint
from trainer.recipes import ModelArguments, dry_run, models, read_recipe, train
from trainer.recipes.models import adapt, load_model
from trainer.teachers import ArraySource, extract_geometry

REPOSITORY = Path(__file__).parents[3]
RECIPES = REPOSITORY / "examples" / "recipes"
# What a tiny model on a CPU cannot follow: sizes, precision, processes, and a wide head beside a narrow tower.
SMALL = """
    --dtype float32 --bf16 False --use_cpu True --validator light --validator_stride 2 --num_frames 2 --max_steps 2
    --num_validation_samples 2 --dataloader_num_workers 0 --gradient_accumulation_steps 2 --logging_steps 1
    --learning_rate 1e-3 --vision_learning_rate 1e-3 --geometry_learning_rate 1e-3 --disable_tqdm True
""".split()
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return export_rooms(tmp_path_factory.mktemp("data") / "rooms", num_scenes=1, image_size=28, num_frames=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    weights = without(original_weights(build_model()), "model.dpt_module.", "model.proj_3d.")
    source = write_source(folder / "original", weights)
    write_tokenizer(source, words=GROUND, extra=["<ground>"])
    convert_checkpoint(source, folder / "converted")
    return folder / "converted"


def terms_of(output: Path, step: int) -> set[str]:
    state = json.loads((output / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return {name for entry in state["log_history"] for name, value in entry.items() if value}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestRecipes:
    def words(self, checkpoint, data, output):
        return ["--model_name_or_path", checkpoint, "--data_dir", data, "--output_dir", output, *SMALL]

    def test_all_weights(self, run_train, checkpoint, data, tmp_path):
        output = tmp_path / "out"
        run_train(RECIPES / "ide3d_7b.yaml", *self.words(checkpoint, data, output))
        terms = terms_of(output, 2)
        assert {"loss_language", "loss_depth", "loss_distillation", "grad_norm_vision", "grad_norm_language"} <= terms
        assert "cc-by-nc-4.0" in (output / "export" / "README.md").read_text()
        exported = AutoModel.from_pretrained(output / "export", trust_remote_code=True)
        before = load_file(checkpoint / "model.safetensors")
        after = exported.state_dict()
        assert set(after) == set(before)
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert len(changed) > 0.9 * len(before)
        run_train(RECIPES / "ide3d_7b.yaml", *self.words(checkpoint, data, output), "--max_steps", 3)
        assert "loss_language" in terms_of(output, 3)

    @needs_peft
    def test_adapters(self, run_train, checkpoint, data, tmp_path):
        output = tmp_path / "out"
        run_train(RECIPES / "ide3d_7b_lora.yaml", *self.words(checkpoint, data, output), "--lora_rank", 2)
        adapter = load_file(output / "checkpoint-2" / "adapter_model.safetensors")
        assert any("vision_tower" in name for name in adapter) and any("language_model" in name for name in adapter)
        exported = AutoModel.from_pretrained(output / "export", trust_remote_code=True).state_dict()
        again = load_file(export_checkpoint(output, tmp_path / "again") / "model.safetensors")
        assert set(again) == set(exported) and all(torch.allclose(again[name], exported[name]) for name in again)
        before = load_file(checkpoint / "model.safetensors")
        assert set(exported) == set(before)
        changed = {name for name in before if not torch.equal(before[name], exported[name])}
        assert "model.language_model.layers.0.mlp.down_proj.weight" in changed
        assert "model.vision_tower.encoder.layers.0.self_attn.q_proj.weight" in changed
        assert any(name.startswith("model.multi_modal_projector") for name in changed)
        assert "model.language_model.embed_tokens.weight" not in changed and "lm_head.weight" not in changed

    @needs_peft
    def test_adapters_beside_half_weights(self, run_train, checkpoint, data, tmp_path):
        """As on the GPU: weights in bfloat16, what is trained in float32, in mixed precision; exported as one type."""
        output = tmp_path / "out"
        words = [*self.words(checkpoint, data, output), "--dtype", "bfloat16", "--bf16", "True", "--lora_rank", 2]
        run_train(RECIPES / "ide3d_7b_lora.yaml", *words)
        heads = load_file(output / "checkpoint-2" / "geometry_modules.safetensors")
        adapter = load_file(output / "checkpoint-2" / "adapter_model.safetensors")
        assert {value.dtype for value in (*heads.values(), *adapter.values())} == {torch.float32}
        exported = load_file(output / "export" / "model.safetensors")
        assert {value.dtype for value in exported.values()} == {torch.bfloat16}

    def test_no_teacher_no_geometry_no_evaluation(self, run_train, checkpoint, data, tmp_path):
        output = tmp_path / "out"
        off = [word for term in ("depth", "cross_view", "overlap", "distillation") for word in (f"--{term}_weight", 0)]
        words = [*self.words(checkpoint, data, output), *off, "--teacher", "none", "--validator", "none"]
        run_train(
            RECIPES / "ide3d_7b.yaml", *words, "--tasks", "scanqa", "--num_validation_samples", 0, "--max_steps", 1
        )
        terms = terms_of(output, 1)
        assert "loss_language" in terms and not {"loss_depth", "loss_distillation", "eval_loss"} & terms

    def test_pseudo_geometry_of_some_scenes(self, run_train, checkpoint, data, tmp_path, caplog):
        """The training room has pseudo geometry, in place of its depth files; the validation room is measured."""
        scene = "scannet/room0000_00"
        scan = data / "scannet" / "posed_images" / "room0000_00"
        names = sorted(path.stem for path in scan.glob("*.jpg"))
        arrays = tmp_path / "arrays" / f"{scene}.npz"
        arrays.parent.mkdir(parents=True)
        depth = np.random.default_rng(0).uniform(1, 2, (len(names), 28, 28))
        np.savez(arrays, frame_names=np.array(names), depth=depth)
        facts = {"name": "x", "version": "1", "licence": "mit", "alignment": "affine"}
        source = ArraySource(tmp_path / "arrays", **facts)
        extract_geometry(source, data, tmp_path / "store", [scene], num_frames=2)
        copied = shutil.copytree(data, tmp_path / "data")
        for path in (copied / "scannet" / "posed_images" / "room0000_00").glob("*.png"):
            path.unlink()
        words = [*self.words(checkpoint, copied, tmp_path / "out"), "--teacher", "none", "--protocol", "clean"]
        words += ["--tasks", "scanqa", "--pseudo_geometry", tmp_path / "store", "--max_steps", 1]
        caplog.set_level("INFO", "trainer")
        run_train(RECIPES / "ide3d_7b.yaml", *words)
        terms = terms_of(tmp_path / "out", 1)
        assert "loss_depth" in terms and "loss_overlap_l1" not in terms
        assert re.search(r"'eval_loss_overlap_l1': (?!0\.0,)", caplog.text)

    def test_pseudo_geometry_needs_the_clean_protocol_and_a_store(self, checkpoint, data, tmp_path):
        words = [*self.words(checkpoint, data, tmp_path / "out"), "--teacher", "none", "--pseudo_geometry", tmp_path]
        recipe = RECIPES / "ide3d_7b.yaml"
        with pytest.raises(ValueError, match="pseudo_geometry needs protocol: clean, got paper"):
            train(*read_recipe(recipe, list(map(str, words))))
        with pytest.raises(FileNotFoundError, match="holds no teacher features"):
            train(*read_recipe(recipe, [*map(str, words), "--protocol", "clean"]))

    def test_heads_of_the_original(self, checkpoint, data, monkeypatch):
        loaded = []
        monkeypatch.setattr(
            models, "load_converted_for_training", lambda *words, **options: loaded.append((words, options))
        )
        recipe = RECIPES / "ide3d_7b.yaml"
        changes = [
            "--validator",
            "original",
            "--model_name_or_path",
            str(checkpoint),
            "--use_cpu",
            "True",
            "--bf16",
            "False",
        ]
        arguments, settings, _ = read_recipe(recipe, changes)
        load_model(arguments, settings, [], 4, "paper")
        assert loaded == [((str(checkpoint),), {"dtype": torch.bfloat16})]


class TestRefusals:
    def read(self, *words):
        return read_recipe(RECIPES / "ide3d_7b.yaml", ["--use_cpu", "True", *words])

    def test_half_weights_without_a_copy(self):
        with pytest.raises(ValueError, match="Weights in bfloat16 would round away small updates"):
            train(*self.read())

    def test_half_weights_with_adapters_but_without_mixed_precision(self):
        with pytest.raises(ValueError, match="Adapters are float32: set bf16: true"):
            train(*self.read("--lora_rank", "4", "--bf16", "False"))

    def test_benchmarks_need_a_folder_and_a_checkpoint(self, checkpoint):
        model, data, args = self.read("--dtype", "float32", "--model_name_or_path", str(checkpoint))
        data.data_dir = None
        with pytest.raises(ValueError, match="source: benchmarks needs data_dir"):
            train(model, data, args)
        model.model_name_or_path = None
        with pytest.raises(ValueError, match="source: benchmarks needs model_name_or_path"):
            train(model, data, args)

    def test_rooms_have_no_stored_teacher(self, tiny_recipe):
        with pytest.raises(ValueError, match="teacher: stored needs source: benchmarks"):
            train(*read_recipe(tiny_recipe(teacher="stored"), []))

    def test_a_rank_that_is_none(self, checkpoint):
        with pytest.raises(ValueError, match="lora_rank must be a whole number of at least 0, got -1"):
            adapt(None, ModelArguments(lora_rank=-1, model_name_or_path=str(checkpoint)))

    def test_adapters_need_a_checkpoint(self):
        with pytest.raises(ValueError, match="Adapters .* need a checkpoint"):
            adapt(None, ModelArguments(lora_rank=4))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestDryRun:
    def test_rooms(self, run_train, tiny_recipe, caplog, tmp_path):
        with caplog.at_level("INFO", logger="trainer.recipes.run"):
            run_train(tiny_recipe(), "--dry-run")
        assert "memory of a process" in caplog.text and "TFLOP a step" in caplog.text
        assert not (tmp_path / "out").exists()

    @pytest.mark.slow
    def test_a_recipe_for_benchmarks_needs_neither_data_nor_weights(self, tmp_path):
        model, data, args = read_recipe(RECIPES / "ide3d_7b.yaml", ["--dry-run", "--num_frames", "2"])
        config = json.loads((RECIPES / "ide3d_7b_config.json").read_text())
        config["text_config"] |= {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64}
        config["text_config"] |= {"num_attention_heads": 2, "num_key_value_heads": 2}
        config["vision_config"] |= {"num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 64}
        config["vision_config"] |= {"num_attention_heads": 2}
        model.planned_config = str(tmp_path / "config.json")
        Path(model.planned_config).write_text(json.dumps(config))
        model.validator, model.validator_stride = "light", 14
        estimate = dry_run(model, data, args)
        assert estimate.placement.processes == 8 and estimate.placement.sharding == "zero2"
        assert estimate.num_pairs == 2  # (0, 1), and by the original's rule the last frame with itself
        frozen = {part: count - estimate.trainable[part] for part, count in estimate.parameters.items()}
        assert frozen.pop("vision") == 2 * 32 and not any(frozen.values())  # the norm that is never used
        model.lora_rank = 2
        adapted = dry_run(model, data, args)
        assert 0 < sum(adapted.trainable.values()) < sum(estimate.trainable.values())
        assert adapted.trainable["geometry"] == estimate.trainable["geometry"] > 0

    def test_neither_checkpoint_nor_planned_config(self):
        model, data, args = read_recipe(RECIPES / "ide3d_7b.yaml", ["--dry-run", "--planned_config", "no.json"])
        with pytest.raises(FileNotFoundError, match="neither .*config.json nor a planned_config"):
            dry_run(model, data, args)

    @pytest.mark.slow
    @pytest.mark.parametrize("name, gigabytes", [("ide3d_7b", 80), ("ide3d_7b_lora", 48)])
    def test_recipes_fit_their_hardware(self, monkeypatch, name, gigabytes):
        monkeypatch.chdir(REPOSITORY)
        estimate = dry_run(*read_recipe(RECIPES / f"{name}.yaml", ["--dry-run"]))
        assert 16 < estimate.total_memory / 1024**3 < gigabytes


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_train_and_one_exports(tiny_recipe, tmp_path, launcher):
    recipe = tiny_recipe(ddp_backend="gloo", place_samples=0)
    launch = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node=2"],
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0"],
    }[launcher]
    command = [sys.executable, "-m", *launch, str(REPOSITORY / "examples" / "train.py"), str(recipe)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_DATASETS_CACHE"] = str(tmp_path / "rooms")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Exported to") == 1
    assert "loss_depth" in terms_of(tmp_path / "out", 2)
    loaded = AutoModel.from_pretrained(tmp_path / "out" / "export", trust_remote_code=True)
    assert loaded.num_parameters() > 0
