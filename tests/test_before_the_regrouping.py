"""Checkpoints, exports and recipes that were made before the packages were regrouped load after."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from training_samples import build_collator, build_processor, make_grounding_sample, make_mixed_batch, make_sample

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.nano.build import build_nano_config, build_nano_model
from trainer.recipes import read_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
BEFORE = REPOSITORY / "tests" / "before_the_regrouping"
SHIPPED = REPOSITORY / "examples" / "checkpoints" / "ide3d-nano-rooms"
LOADING = """
import sys
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, inputs, results = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
for part in (processor, model):
    assert type(part).__module__.startswith("transformers_modules."), type(part).__module__
inputs = load_file(inputs)
with torch.no_grad():
    logits = model(**inputs).logits
tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
save_file({"logits": logits, "tokens": tokens}, results)
"""


def unpack(name: str, folder: Path) -> Path:
    """Unpack one of the archives; returns the folder that it holds."""
    with tarfile.open(BEFORE / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


def build_old_model():
    """The model of the checkpoint, as its run built it."""
    config = build_nano_config(build_processor(), hidden_size=16, vision_layers=1, text_layers=1, heads=2)
    torch.manual_seed(0)
    narrow = {"projection_size": 8, "features": 8, "out_channels": (8, 8, 8, 8), "head_features": 8}
    return build_nano_model(config, teacher_size=6, validator={"layer_indices": (0, 0, 1, 1), **narrow})


@pytest.fixture
def resume(tmp_path):
    """`resume()` continues the old run behind step 2 to its step 5."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run() -> IDE3DTrainer:
        arguments = IDE3DTrainingArguments(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
            learning_rate=3e-3,
            per_device_train_batch_size=2,
            seed=0,
            max_steps=5,
            save_strategy="no",
            lr_scheduler_type="cosine",
            vision_learning_rate=1e-3,
            geometry_learning_rate=2e-3,
            weight_decay=0.01,
        )
        samples = [*make_mixed_batch(), make_grounding_sample(2, seed=7), make_sample(5, seed=4)]
        trainer = IDE3DTrainer(build_old_model(), arguments, train_dataset=samples, data_collator=build_collator())
        trainer.train(resume_from_checkpoint=str(unpack("checkpoint-2", tmp_path / "checkpoint")))
        return trainer

    yield run
    torch.set_num_threads(threads)


def test_a_checkpoint_is_resumed(resume):
    trainer = resume()
    expected = json.loads((BEFORE / "losses.json").read_text())
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4, 5]
    for before, after in zip(expected[2:], logged[2:], strict=True):
        assert set(before) <= set(after)
        for name, value in before.items():
            assert after[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (before["step"], name)


@pytest.fixture
def old_export(tmp_path) -> Path:
    """The shipped model's folder with the code files, and as many words, of that time."""
    folder = unpack("nano-rooms", tmp_path / "export")
    weights, words = load_file(SHIPPED / "model.safetensors"), "model.language_model.embed_tokens.weight"
    known = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    weights[words] = weights[words][:known].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "past_key_values" in (folder / "modeling_ide3d.py").read_text()
    return folder


@pytest.mark.slow
def test_an_export_loads_by_its_own_code_and_by_ours(old_export, tmp_path):
    processor = IDE3DProcessor.from_pretrained(old_export)
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Is there a red chair?"}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    video = torch.randint(0, 256, (4, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = processor(text=[text], videos=[video.numpy()], do_sample_frames=False, return_tensors="pt")
    inputs = {key: batch[key].contiguous() for key in ("input_ids", "attention_mask", "pixel_values_videos")}
    save_file(inputs, tmp_path / "inputs.safetensors")
    words = [old_export, tmp_path / "inputs.safetensors", tmp_path / "results.safetensors"]
    (tmp_path / "elsewhere").mkdir()
    process = subprocess.run(
        [sys.executable, "-I", "-c", LOADING, *map(str, words)],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    by_its_own = load_file(tmp_path / "results.safetensors")

    model = IDE3DForConditionalGeneration.from_pretrained(old_export, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(**inputs).logits
    torch.testing.assert_close(logits, by_its_own["logits"], rtol=1e-4, atol=1e-4)
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert torch.equal(tokens, by_its_own["tokens"])


@pytest.mark.parametrize("path", sorted((BEFORE / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_read(path):
    model, data, arguments = read_recipe(path, ["--dry-run"])
    recipe = yaml.safe_load(path.read_text())
    assert model.dry_run and arguments.output_dir == recipe["output_dir"]
    assert all(any(hasattr(part, name) for part in (model, data, arguments)) for name in recipe)
