"""The promise of the project: what is exported loads and answers where nobody has heard of us."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exporting import (
    CODE_FILES,
    EXPORT_FILES,
    NUM_FRAMES,
    build_inputs,
    build_processor,
    build_training_model,
    names_in,
    write_video,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from trainer.export import code_files, export_inference_model, is_export
from trainer.supervision.criterion import GeometryCriterion

FRESH_PROCESS = Path(__file__).with_name("fresh_process.py")
ALLOWED_IMPORTS = {"torch", "numpy", "transformers", "huggingface_hub"}


@pytest.fixture(scope="module")
def processor() -> IDE3DProcessor:
    return build_processor()


@pytest.fixture(scope="module")
def training_model(processor):
    """As a training leaves it: with its criterion, and with `use_cache` and a key of its own in the config."""
    model = build_training_model(processor)
    model.criterion = GeometryCriterion()
    model.config.use_cache = False
    model.config.teacher_size = 24
    return model


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "room.mp4")


@pytest.fixture(scope="module")
def export(training_model, processor, tmp_path_factory) -> Path:
    """An export of the training model. Processor and tokenizer come from a folder, as they mostly do."""
    folder = tmp_path_factory.mktemp("export")
    processor.save_pretrained(folder / "processor")
    loaded = IDE3DProcessor.from_pretrained(folder / "processor")
    return export_inference_model(training_model, loaded, folder / "room-model")


def run_fresh(arguments: list, folder: Path) -> dict:
    """Run fresh_process.py: isolated, in an unrelated directory, offline, with a cache of its own."""
    (folder / "elsewhere").mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    environment |= {
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    command = [sys.executable, "-I", str(FRESH_PROCESS), *map(str, arguments)]
    process = subprocess.run(command, cwd=folder / "elsewhere", env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads((folder / "results.json").read_text()) | {"stderr": process.stderr}


@pytest.fixture(scope="module")
def inputs(processor, video) -> dict[str, torch.Tensor]:
    return build_inputs(processor, video)


@pytest.fixture(scope="module")
def fresh(training_model, processor, export, video, inputs, tmp_path_factory) -> dict:
    """Everything a stranger does with the export, in a process of its own."""
    folder = tmp_path_factory.mktemp("fresh")
    save_file(inputs, folder / "inputs.safetensors")
    base = export_inference_model(training_model, processor, folder / "base", auto_model="base")
    sharded = export_inference_model(training_model, processor, folder / "sharded", max_shard_size="40KB")
    arguments = [export, video, folder / "inputs.safetensors", folder]
    arguments += ["--base", base, "--sharded", sharded, "--resave", folder / "resaved"]
    results = run_fresh(arguments, folder)
    return results | {"folder": folder, "logits": load_file(folder / "logits.safetensors")}


# What is in the folder


def test_export_has_exactly_these_files(export):
    assert names_in(export) == EXPORT_FILES
    assert {path.name for path in code_files()} == CODE_FILES


def test_code_files_are_flat_and_import_nothing_of_ours():
    for path in code_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and "." not in node.module, f"{path.name}:{node.lineno}"
                assert f"{node.module}.py" in CODE_FILES, f"{path.name}:{node.lineno}"
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                for module in (module.partition(".")[0] for module in modules):
                    is_optional = module in {"PIL", "av", "torchcodec"}  # inside `try`, checked below
                    assert module in ALLOWED_IMPORTS | sys.stdlib_module_names or is_optional, f"{path.name}: {module}"


def test_optional_imports_of_code_files_stand_in_try():
    for path in code_files():
        tree = ast.parse(path.read_text())
        guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            if {name.partition(".")[0] for name in names} & {"PIL", "av", "torchcodec"}:
                assert id(node) in guarded, f"{path.name}:{node.lineno} makes {names} a hard requirement"


def test_export_holds_no_training_only_key(export, training_model):
    with safe_open(export / "model.safetensors", "pt") as file:
        keys = set(file.keys())
    assert keys == set(IDE3DForConditionalGeneration(training_model.config).state_dict())
    config = json.loads((export / "config.json").read_text())
    assert not {"use_cache", "teacher_size"} & set(config) and config["text_config"]["use_cache"] is True
    assert config["architectures"] == ["IDE3DForConditionalGeneration"]
    for path in export.iterdir():
        text = path.read_bytes().lower()
        for word in (b"geometric_validator", b"teacher_projector", b"modeling_ide3d.auxiliary", b"criterion"):
            assert word not in text, f"{word} in {path.name}"


def test_export_names_no_path_of_the_machine_that_wrote_it(export):
    for path in export.iterdir():
        content = path.read_bytes()
        for secret in (str(export.parent), str(Path(__file__).parents[2]), str(Path.home())):
            assert len(secret) < 3 or secret.encode() not in content, f"{secret} in {path.name}"


def test_auto_map_of_config_and_processor(export):
    config = json.loads((export / "config.json").read_text())
    generating = "modeling_ide3d.IDE3DForConditionalGeneration"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ide3d.IDE3DConfig",
        "AutoModel": generating,
        "AutoModelForImageTextToText": generating,
        "AutoModelForMultimodalLM": generating,
    }
    processor = json.loads((export / "processor_config.json").read_text())
    assert processor["auto_map"] == {"AutoProcessor": "processing_ide3d.IDE3DProcessor"}
    video_map = {"AutoVideoProcessor": "video_processing_ide3d.IDE3DVideoProcessor"}
    assert processor["video_processor"]["auto_map"] == video_map


def test_generation_config_is_greedy_and_ends(export, processor):
    generation = json.loads((export / "generation_config.json").read_text())
    assert generation["do_sample"] is False and generation["max_new_tokens"] > 20
    assert generation["eos_token_id"] == [processor.tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert generation["pad_token_id"] == processor.tokenizer.pad_token_id


def test_export_is_readable_by_others(export):
    assert export.stat().st_mode & 0o777 == export.parent.joinpath("processor").stat().st_mode & 0o777


def test_export_leaves_the_trained_model_alone(training_model, export):
    assert training_model.config.use_cache is False
    assert not hasattr(training_model.config, "auto_map")
    assert type(training_model)._auto_class is None and IDE3DForConditionalGeneration._auto_class is None
    assert all(not parameter.is_meta for parameter in training_model.parameters())


# What a stranger does with it


def test_our_packages_cannot_be_imported_there(fresh):
    assert fresh["importable"] == []


def test_every_auto_class_loads(fresh):
    assert fresh["classes"] == {
        "AutoConfig": "IDE3DConfig",
        "AutoModel": "IDE3DForConditionalGeneration",
        "AutoModelForImageTextToText": "IDE3DForConditionalGeneration",
        "AutoModelForMultimodalLM": "IDE3DForConditionalGeneration",
        "AutoProcessor": "IDE3DProcessor",
        "AutoTokenizer": "TokenizersBackend",
        "AutoVideoProcessor": "IDE3DVideoProcessor",
    }
    assert set(fresh["modules"]) == {"transformers", "transformers_modules"}


def test_logits_before_and_after_are_equal_bit_for_bit(fresh, training_model, inputs):
    with torch.no_grad():
        before = training_model(**inputs).logits
    assert before.std() > 0
    assert torch.equal(before, fresh["logits"]["export"])
    assert torch.equal(before, fresh["logits"]["sharded"])


def test_generation_there_equals_generation_here(fresh, export, processor, video):
    inputs = build_inputs(processor, video, add_generation_prompt=True)
    here = AutoModel.from_pretrained(export).generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
    answer = fresh["answer"]
    assert answer["new_tokens"] == answer["new_tokens_without_cache"] == here.tolist()
    assert answer["frames"] == NUM_FRAMES and answer["text_only_length"] > 0
    assert fresh["do_sample"] is False and fresh["max_new_tokens"] > 20


def test_pipeline_answers_about_a_file_and_about_frames(fresh, processor):
    assert fresh["pipeline"]["model"] == "IDE3DForConditionalGeneration"
    expected = processor.decode(fresh["answer"]["new_tokens"], skip_special_tokens=True)
    assert fresh["pipeline"]["file"] == fresh["pipeline"]["frames"] == expected


def test_trainer_smooths_the_labels_of_the_next_token(fresh):
    given, wanted = fresh["smoothed"]
    assert given == pytest.approx(wanted, rel=1e-5)


def test_grounding_there_equals_grounding_here(fresh, training_model, processor, video):
    content = [{"type": "video", "path": str(video)}, {"type": "text", "text": "Where is the lamp?"}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "<ground>"}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    masks = torch.zeros(1, 2, NUM_FRAMES, *training_model.config.token_grid, dtype=torch.bool)
    masks[0, 0, :, 0, 0] = masks[0, 1, 0, 1:, 1:] = True
    with torch.no_grad():
        scores = training_model.ground(**inputs, region_masks=masks)
    assert fresh["ground"] == scores[0].tolist()
    assert len(set(fresh["ground"])) == 3


def test_quick_start_of_the_card_runs(fresh):
    assert isinstance(fresh["card"], str)


def test_base_export_gives_the_bare_model(fresh):
    assert fresh["base"] == "IDE3DModel"
    assert fresh["base_generating"] == "IDE3DForConditionalGeneration"


def test_sharded_export_has_shards_and_an_index(fresh):
    names = names_in(fresh["folder"] / "sharded")
    shards = {name for name in names if name.endswith(".safetensors")}
    assert len(shards) > 2 and names - shards == EXPORT_FILES - {"model.safetensors"} | {
        "model.safetensors.index.json"
    }
    assert is_export(fresh["folder"] / "sharded")


@pytest.mark.slow
def test_what_is_saved_again_there_loads_in_another_process(fresh, video, export):
    resaved = fresh["folder"] / "resaved"
    assert names_in(resaved) == EXPORT_FILES - {"README.md"}
    folder = fresh["folder"] / "again"
    results = run_fresh([resaved, video, fresh["folder"] / "inputs.safetensors", folder], folder)
    assert results["importable"] == [] and results["classes"] == fresh["classes"]
    assert torch.equal(load_file(folder / "logits.safetensors")["export"], fresh["logits"]["export"])
    for key in ("answer", "pipeline", "ground"):
        assert results[key] == fresh[key]


# Validator attached and removed


def test_logits_with_heads_at_work_equal_those_of_the_export(training_model, export, inputs):
    size = training_model.config.vision_config.image_size
    rows, cols = training_model.config.token_grid
    intrinsics = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]])
    with torch.no_grad():
        attached = training_model(
            **inputs,
            depth=torch.full((1, NUM_FRAMES, size, size), 2.0),
            intrinsics=intrinsics.expand(1, NUM_FRAMES, 3, 3),
            camera_to_world=torch.eye(4).expand(1, NUM_FRAMES, 4, 4),
            teacher_features=torch.randn(1, NUM_FRAMES, rows, cols, 24, generator=torch.Generator().manual_seed(0)),
        )
        removed = AutoModel.from_pretrained(export)(**inputs)
    assert attached.depth is not None and attached.cross_view_depth is not None
    assert attached.loss_depth > 0 and attached.loss_distillation > 0
    assert torch.equal(attached.logits, removed.logits)
