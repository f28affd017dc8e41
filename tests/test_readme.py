"""What the README says is true: its code runs, its commands and flags exist, its links and names lead somewhere."""

import ast
import configparser
import dataclasses
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from exporting import build_processor, build_training_model, write_video
from PIL import Image
from safetensors.torch import load_file
from tiny_hosts import HOSTS
from training_samples import make_sample

from trainer import IDE3DTrainingArguments, export_inference_model
from trainer.recipes import DataArguments, ModelArguments

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "README.md", REPOSITORY / "examples" / "README.md"]
DOCS = sorted((REPOSITORY / "docs").rglob("*.md"))
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
ASK, POINT, TRAIN, SUPERVISE, OWN_DATA, SESSION, CONVERTED = PYTHON
EXPORT, VIDEO, SCENE = "examples/checkpoints/ide3d-nano-rooms", "room.mp4", "scans/scene0000_00"
# Where the names of the paper table are looked for.
MODULES = """
    modeling_ide3d modeling_ide3d.auxiliary modeling_ide3d.convert_llava_qwen modeling_ide3d.restore_llava_qwen
    modeling_ide3d.grounding_ide3d
    processing processing.regions trainer trainer.geometry trainer.supervision.criterion trainer.losses
""".split()


def replaced(code: str, changes: dict[str, str]) -> str:
    """`code` with other names and numbers in it; each must be there, so that the README and this test stay in step."""
    for old, new in changes.items():
        assert old in code, f"{old!r} is no longer in this block of the README"
        code = code.replace(old, new)
    return code


def run(code: str, folder: Path) -> list[str]:
    """Run a script in an empty place, offline, with caches of its own; the lines that it printed."""
    script = folder / "script.py"
    script.write_text(code)
    environment = os.environ | {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    process = subprocess.run([sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-4000:]
    return process.stdout.splitlines()


def write_scene(folder: Path) -> None:
    """Two frames in the posed_images layout."""
    folder.mkdir(parents=True)
    for index, name in enumerate(("00000", "00001")):
        Image.fromarray(np.full((48, 64, 3), 90 * index, np.uint8)).save(folder / f"{name}.jpg")
        Image.fromarray(np.full((24, 32), 1500, np.uint16)).save(folder / f"{name}.png")
        np.savetxt(folder / f"{name}.txt", np.eye(4))
    np.savetxt(folder / "intrinsic.txt", np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]))


def test_twelve_lines_and_pointing_run_on_an_export(tmp_path):
    processor = build_processor()
    export = export_inference_model(build_training_model(processor), processor, tmp_path / "export")
    video = write_video(tmp_path / "own.mp4")
    ask = replaced(ASK, {EXPORT: str(export), VIDEO: str(video)})
    assert len(ASK.strip().splitlines()) <= 12
    session = replaced(SESSION, {VIDEO: str(video)}) + "print(len(answers), len(captions), *scores.shape)\n"
    printed = run(ask + "print('asked')\n" + POINT + session, tmp_path)
    assert "asked" in printed
    assert re.fullmatch(r"region [01]|no such object", printed[-2])
    assert printed[-1] == "2 2 2 3"


def test_training_and_own_data_run(tmp_path):
    small = {
        '"train", 64,': '"train", 3,',
        "max_steps=20": "max_steps=2, use_cpu=True",
        "per_device_train_batch_size=4": "per_device_train_batch_size=2",
    }
    write_scene(tmp_path / SCENE)
    printed = run(replaced(TRAIN, small) + OWN_DATA + "print(*sorted(batch))\n", tmp_path)
    keys = printed[-1].split()
    assert {"depth", "intrinsics", "camera_to_world", "has_geometry", "labels", "pixel_values_videos"} <= set(keys)
    export = tmp_path / "outputs" / "library" / "export"
    card = (export / "README.md").read_text(encoding="utf-8")
    assert "loss_distillation" in card and "point map" in card
    assert all(f"`{key}`" in README for key in keys), "the table of batch keys lacks one"


def test_supervision_of_another_model_runs(tmp_path):
    host, sample = HOSTS["qwen2_5_vl"], make_sample(2)
    host.build_model().save_pretrained(tmp_path / "qwen")
    targets = {key: torch.as_tensor(sample[key])[None] for key in ("depth", "intrinsics", "camera_to_world")}
    torch.save([(host.build_inputs([sample["frames"]]), targets)] * 2, tmp_path / "batches.pt")
    small = {"path/to/Qwen2.5-VL": "qwen", ".attach(model)": '.attach(model, validator="light")'}
    code = "import torch\n\nbatches = torch.load('batches.pt', weights_only=True)\n" + replaced(SUPERVISE, small)
    run(code, tmp_path)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("qwen", "outputs/supervised"))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "code", PYTHON, ids=["ask", "point", "train", "supervise", "own data", "session", "converted"]
)
def test_imports_of_every_block_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def shell_commands() -> list[str]:
    """Lines of the shell blocks and of the table of examples, comments cut."""
    lines = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]
    lines += re.findall(
        r"`((?:python|make) [^`]+)`", PAGES[0].read_text(encoding="utf-8") + PAGES[1].read_text("utf-8")
    )
    return sorted({line.partition("#")[0].strip() for line in lines} - {""})


def flags_of_training() -> set[str]:
    """Flags of examples/train.py: the fields of its dataclasses."""
    classes = (ModelArguments, DataArguments, IDE3DTrainingArguments)
    return {field.name for cls in classes for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("command", shell_commands())
def test_command_exists(command):
    words = shlex.split(command)
    if words[0] in ("accelerate", "torchrun"):
        if "--config_file" in words:
            assert (REPOSITORY / words[words.index("--config_file") + 1]).is_file()
        script = next(place for place, word in enumerate(words) if word == "-m" or word.endswith(".py"))
        words = ["python", *words[script:]]
    flags = [word for word in words if word.startswith("--")]
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert len(words) == 2 and re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE)
        return
    assert words[0] == "python"
    if words[1] == "-m":
        name = words[2].replace(".", "/")
        path = next(p for p in (REPOSITORY / f"{name}.py", REPOSITORY / name / "__main__.py") if p.is_file())
    else:
        path = REPOSITORY / words[1]
    if path.name == "train.py":
        assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= flags_of_training()
        assert (REPOSITORY / words[2]).is_file()
    else:
        source = path.read_text(encoding="utf-8")
        assert all(f'add_argument("{flag}"' in source for flag in flags)


def links(page: Path) -> list[tuple[str, str]]:
    """Pairs of text and target, pictures included."""
    return re.findall(r"\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES + DOCS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings(page):
    inner = [target for _, target in links(page) if "://" not in target]
    assert [target for target in inner if not target.endswith(".png")]
    missing = []
    for target in inner:
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        is_there = path.is_dir() if name.endswith("/") else path.is_file()
        if not is_there or (anchor and anchor not in anchors(path)):
            missing.append(target)
    assert missing == []


def test_picture_exists():
    assert "DEMO_FIGURES" not in README
    pictures = [target for _, target in links(PAGES[0]) if target.endswith(".png")]
    assert pictures and all((REPOSITORY / target).is_file() for target in pictures)


def test_named_tests_are_in_the_linked_files():
    named = [
        (text.strip("`"), target) for text, target in links(PAGES[0]) if text.startswith("`test_") and ".py" in target
    ]
    functions = [(name, target) for name, target in named if not name.endswith(".py")]
    assert functions and len(named) > len(functions)
    for name, target in functions:
        assert f"def {name}(" in (REPOSITORY / target).read_text(encoding="utf-8"), name
    for name, target in set(named) - set(functions):
        assert target.endswith(f"/{name}")


def table(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading, without its head."""
    section = README.split(f"# {heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_names_of_the_paper_table_exist():
    modules = [importlib.import_module(name) for name in MODULES]
    names = [name for row in table("Paper to code") for name in re.findall(r"`([\w.]+)`", row[1])]
    for name in names:
        first, *rest = name.split(".")
        found = next((getattr(module, first) for module in modules if hasattr(module, first)), None)
        assert found is not None, name
        for part in rest:
            found = getattr(found, part)


def test_every_loss_weight_is_in_the_table_of_terms():
    weights = {row[0].strip("`"): row[1].strip("`") for row in table("Train")}
    terms = IDE3DTrainingArguments(output_dir="unused", report_to="none").loss_weights
    assert set(weights) == {"loss_language", *terms}
    fields = {field.name for field in dataclasses.fields(IDE3DTrainingArguments)}
    assert set(weights.values()) - {"weight 1"} <= fields


def test_every_source_of_regions_is_listed():
    regions = importlib.import_module("processing.regions")
    listed = {row[1].strip("`") for row in table("Point at objects and find them")}
    assert listed == {name for name in vars(regions) if name.startswith("regions_from_")}


def test_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    changes = re.search(r"^## ([\d.]+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert setup["metadata"]["version"] == citation["version"] == changes
    assert setup["metadata"]["license"] == citation["license"]
