"""Tables of README and docs name what there is, all of it; the README stays one page."""

import configparser
import dataclasses
import importlib
import re

import yaml
from doc_pages import README, REPOSITORY, find_links, find_table, read

from trainer import IDE3DTrainingArguments

# Where the names of the paper table are looked for.
MODULES = """
    modeling_ide3d modeling_ide3d.auxiliary modeling_ide3d.conversion modeling_ide3d.grounding_ide3d
    processing processing.regions trainer trainer.geometry trainer.supervision.criterion trainer.losses
""".split()


def test_readme_is_one_page():
    assert len(read(README).splitlines()) <= 150
    assert len(README.read_bytes()) <= 10_000


def test_readme_says_the_limit_in_the_first_screen():
    start = "\n".join(read(README).splitlines()[:12])
    assert "its answers about a real room are not to be trusted" in start
    pictures = [target for _, target in find_links(README) if target.endswith(".png")]
    assert len(pictures) == 1 and pictures[0] in start


def test_readme_maps_every_package():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    mapped = {target.rstrip("/") for _, target in find_links(README)}
    folders = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    names = setup["options"]["packages"].split()
    packages = {folders.get(name, name.replace(".", "/")) for name in names}
    missing = {path for path in packages if not any(path == name or path.startswith(f"{name}/") for name in mapped)}
    assert missing == set()
    assert {path for path in packages if path.count("/") == 1} <= mapped


def test_every_module_at_the_top_of_processing_is_listed_once():
    rows = find_table("../CONTRIBUTING.md", "Modules at the top of `processing`")
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row[1])]
    assert sorted(listed) == sorted({path.stem for path in (REPOSITORY / "processing").glob("*.py")} - {"__init__"})


def test_every_example_is_listed():
    folder = REPOSITORY / "examples"
    scripts = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    packages = {path.parent.name for path in folder.glob("*/__main__.py")}
    assert scripts | packages <= {target.rstrip("/") for _, target in find_links(folder / "README.md")}


def test_names_of_the_paper_table_exist():
    modules = [importlib.import_module(name) for name in MODULES]
    names = [name for row in find_table("protocols.md", "Paper to code") for name in re.findall(r"`([\w.]+)`", row[1])]
    assert names
    for name in names:
        first, *rest = name.split(".")
        found = next((getattr(module, first) for module in modules if hasattr(module, first)), None)
        assert found is not None, name
        for part in rest:
            found = getattr(found, part)


def test_every_loss_weight_is_in_the_table_of_terms():
    weights = {row[0].strip("`"): row[1].strip("`") for row in find_table("train.md", "Loss terms")}
    terms = IDE3DTrainingArguments(output_dir="unused", report_to="none").loss_weights
    assert set(weights) == {"loss_language", *terms}
    fields = {field.name for field in dataclasses.fields(IDE3DTrainingArguments)}
    assert set(weights.values()) - {"weight 1"} <= fields


def test_arguments_of_the_training_exist():
    fields = {field.name for field in dataclasses.fields(IDE3DTrainingArguments)}
    rows = find_table("train.md", "Arguments that are ours")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} <= fields


def test_every_source_of_regions_is_listed():
    regions = importlib.import_module("processing.regions")
    listed = {row[1].strip("`") for row in find_table("ask_and_find.md", "Where regions come from")}
    assert listed == {name for name in vars(regions) if name.startswith("regions_from_")}


def test_every_extra_is_listed():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert {row[0].strip("`") for row in find_table("quickstart.md", "Install")} == set(
        setup["options.extras_require"]
    )


def test_every_teacher_is_listed():
    teachers = importlib.import_module("trainer.teachers")
    listed = {name for row in find_table("teachers.md", "Teachers") for name in re.findall(r"`(\w+Teacher)`", row[2])}
    assert listed == {name for name in teachers.__all__ if name.endswith("Teacher")} - {"Teacher", "PatchTeacher"}


def test_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    citation = yaml.safe_load(read(REPOSITORY / "CITATION.cff"))
    changes = re.search(r"^## ([\d.]+)", read(REPOSITORY / "CHANGELOG.md"), re.MULTILINE)[1]
    assert setup["metadata"]["version"] == citation["version"] == changes
    assert setup["metadata"]["license"] == citation["license"]
