"""Who may import whom, and what a file may import that is copied into every export."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

REPOSITORY = Path(__file__).resolve().parents[1]

CORE, PROCESSING, EVALUATION = "modeling_ide3d", "processing", "trainer.evaluation"
AUXILIARY, CONVERSION = "modeling_ide3d.auxiliary", "modeling_ide3d.conversion"
LOSSES, GEOMETRY, SESSION = "trainer.losses", "trainer.geometry", "trainer.session"
DRAWING, LOOP = "trainer.drawing", "trainer.loop"
PROCESSES, FIELD_RULES = "trainer.processes", "trainer.field_rules"
READERS, METRICS = "processing.benchmarks.readers", f"{EVALUATION}.metrics"
ROOMS, SCENE, RENDER, QUESTIONS, FURNITURE = (
    "processing.rooms",
    *(f"processing.rooms.{name}" for name in ("scene", "render", "questions", "furnished")),
)
PROPOSALS, CAPTURES, CHATS = "processing.proposals", "processing.captures", "processing.chats"
BENCHMARKS, DOCTOR, EXPORT = "processing.benchmarks", "processing.benchmarks.doctor", "processing.benchmarks.export"
ALL_OF_PROCESSING = {
    PROCESSING, BENCHMARKS, READERS, DOCTOR, EXPORT, CAPTURES, CHATS, PROPOSALS, ROOMS, SCENE, RENDER, QUESTIONS,
    FURNITURE,
}  # fmt: skip
# What trains, from top to bottom: arrows go downwards only. Modules at the top of `trainer` are rooms of their own.
TRAINING_LAYERS = (
    ("trainer.recipes",),
    ("trainer.push",),
    ("trainer.export",),
    ("trainer.planning", "trainer.model_card", "trainer.nano"),
    ("trainer.ide3d_trainer",),
    ("trainer.loop",),
    ("trainer.supervision", "trainer.data_collator"),
    ("trainer.data",),
    (LOSSES, "trainer.teachers"),
    (GEOMETRY, "trainer.training_arguments", SESSION),
    (PROCESSES, FIELD_RULES),
)


def may_import() -> dict[str, set[str]]:
    """The table of the architecture: for each room those that it may import. Every room may import itself."""
    table = {
        CORE: set(),
        AUXILIARY: {CORE},
        CONVERSION: {CORE, PROCESSING},  # for the one writer of files and folders, and the one chat template
        PROCESSING: set(),
        PROPOSALS: {PROCESSING},
        CAPTURES: {PROCESSING},
        CHATS: {PROCESSING},
        SCENE: {PROCESSING},
        RENDER: {PROCESSING, SCENE},
        QUESTIONS: {PROCESSING, SCENE},
        FURNITURE: {PROCESSING, SCENE, RENDER},
        ROOMS: {PROCESSING, SCENE, RENDER, QUESTIONS, FURNITURE},
        READERS: {PROCESSING},
        BENCHMARKS: {PROCESSING, READERS},
        DOCTOR: {PROCESSING, BENCHMARKS, READERS},
        EXPORT: {PROCESSING, BENCHMARKS, READERS, ROOMS, QUESTIONS},
    }
    for place, layer in enumerate(TRAINING_LAYERS):
        below = {room for lower in TRAINING_LAYERS[place + 1 :] for room in lower}
        table |= dict.fromkeys(layer, {CORE, AUXILIARY, *ALL_OF_PROCESSING, *below})
    shared = {PROCESSES, FIELD_RULES}
    table |= {LOSSES: {GEOMETRY}, **dict.fromkeys((GEOMETRY, PROCESSES, FIELD_RULES), set())}
    table["trainer.training_arguments"] = shared
    table |= {SESSION: {CORE, *ALL_OF_PROCESSING}, "trainer.teachers": {GEOMETRY, *shared, *ALL_OF_PROCESSING}}
    measured = {CORE, *ALL_OF_PROCESSING, SESSION, "trainer.data", GEOMETRY, *shared}
    table |= {
        DRAWING: {AUXILIARY, GEOMETRY, LOOP, *ALL_OF_PROCESSING, SESSION},
        METRICS: {PROCESSING, FIELD_RULES},
        EVALUATION: {CONVERSION, DRAWING, METRICS, *measured},
        f"{EVALUATION}.probes": {AUXILIARY, METRICS, *measured},
    }
    table["trainer"] = set(table)  # its lazy names
    return table | {"ide3d": set(table), "examples": {*table, "ide3d"}}


MAY_IMPORT = may_import()
# Modules that belong to another room than the folder says: public doors, and the words that questions are read by.
MEMBERS = {f"modeling_ide3d.{kind}_llava_qwen": CONVERSION for kind in ("convert", "restore")}
MEMBERS["processing.benchmarks.prompts"] = READERS
PACKAGES = ("ide3d", "modeling_ide3d", "processing", "trainer")
EXPORTED_ROOMS = (CORE, PROCESSING)
EXPORT_MAY_IMPORT = {"torch", "numpy", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)
# What reads a file from disk stands in a `try:` and is needed by those who have such a file.
EXPORT_MAY_TRY = {"PIL", "av", "torchcodec"}


def python_files(*rooms: str) -> list[Path]:
    """Modules and stubs."""
    return sorted(
        file for room in rooms for file in (REPOSITORY / room).rglob("*.py*") if file.suffix in (".py", ".pyi")
    )


def exported_files() -> list[Path]:
    """Files that a checkpoint carries: `*_ide3d.py` directly inside the two rooms."""
    return [file for room in EXPORTED_ROOMS for file in sorted((REPOSITORY / room).glob("*_ide3d.py"))]


def room_of(module: str) -> str | None:
    """The smallest room that holds a dotted module name, None for what is not ours."""
    module = MEMBERS.get(module, module)
    rooms = [room for room in MAY_IMPORT if module == room or module.startswith(room + ".")]
    return max(rooms, key=len, default="tests" if module.split(".")[0] == "tests" else None)


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(tree: ast.AST, name: str, is_package: bool) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            # `from trainer import geometry` imports trainer.geometry, if there is such a room
            modules = {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in MAY_IMPORT else base for alias in node.names
            }
        else:
            continue
        found |= modules
    return found


def crossed_borders(tree: ast.AST, name: str, is_package: bool = False) -> list[str]:
    """Modules of other rooms that the module `name` must not import."""
    own = room_of(name)
    targets = sorted(imported_modules(tree, name, is_package))
    return [module for module in targets if (room := room_of(module)) and room not in {own, *MAY_IMPORT[own]}]


def rooms_imported(*packages: str) -> dict[str, set[str]]:
    """For each room of these packages the other rooms that it does import."""
    graph: dict[str, set[str]] = {}
    for file in python_files(*packages):
        name = module_name(file)
        targets = imported_modules(ast.parse(file.read_text(encoding="utf-8")), name, file.stem == "__init__")
        own = room_of(name)
        graph.setdefault(own, set()).update({room for target in targets if (room := room_of(target))} - {own})
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Rooms that a room imports, directly or through others."""
    found, new = set(), {start}
    while new:
        found |= new
        new = {room for source in new for room in graph.get(source, ())} - found
    return found - {start}


def names_in_try(tree: ast.AST) -> set[int]:
    """Ids of the nodes inside `try:` blocks, which the loader of remote code passes over."""
    return {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}


def export_violations(tree: ast.AST, siblings: set[str]) -> list[str]:
    """Imports that would break an exported checkpoint at saving or loading."""
    wrong, tried = [], names_in_try(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1 or node.module not in siblings:
                wrong.append(f"line {node.lineno}: from {'.' * node.level}{node.module or ''} import")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            allowed = EXPORT_MAY_IMPORT | (EXPORT_MAY_TRY if id(node) in tried else set())
            wrong += [
                f"line {node.lineno}: import {module}" for module in modules if module.split(".")[0] not in allowed
            ]
    return wrong


@pytest.mark.parametrize(
    "file", python_files(*PACKAGES, "examples"), ids=lambda file: f"{module_name(file)}{file.suffix}"
)
def test_rooms_import_only_what_the_table_allows(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert crossed_borders(tree, module_name(file), file.stem == "__init__") == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_in_the_table(package):
    """So is every module at the top of the trainer, whose order is that of the layers."""
    found = {module_name(file) for file in (REPOSITORY / package).rglob("__init__.py")}
    if package == "trainer":
        found |= {module_name(file) for file in (REPOSITORY / package).glob("*.py")} - {"trainer.moved"}
    missing = {name for name in found if room_of(name) != name and room_of(name) != "ide3d"}
    assert missing == set()


def test_every_room_of_the_table_is_on_disk():
    places = {room: REPOSITORY.joinpath(*room.split(".")) for room in MAY_IMPORT}
    assert [room for room, place in places.items() if not (place.is_dir() or place.with_suffix(".py").is_file())] == []


def test_no_rooms_import_each_other_in_a_circle():
    """Neither does the table allow one."""
    for graph in (rooms_imported(*PACKAGES, "examples"), MAY_IMPORT):
        assert set(TopologicalSorter(graph).static_order()) >= set(graph)  # a circle raises


def test_nothing_that_trains_imports_the_evaluation():
    graph = rooms_imported(*PACKAGES)
    for room in (room for layer in TRAINING_LAYERS for room in layer):
        assert not {other for other in reachable(graph, room) if other.startswith(EVALUATION)}, room


def test_nobody_imports_the_door():
    graph = rooms_imported(*PACKAGES)
    assert "ide3d" in graph and [room for room, others in graph.items() if "ide3d" in others] == []


@pytest.mark.parametrize("file", exported_files(), ids=module_name)
def test_exported_files_import_only_what_every_user_has(file):
    siblings = {sibling.stem for sibling in exported_files() if sibling.parent == file.parent}
    assert export_violations(ast.parse(file.read_text(encoding="utf-8")), siblings) == []


@pytest.mark.parametrize("file", exported_files(), ids=module_name)
def test_no_text_looks_like_a_relative_import(file):
    """Transformers finds relative imports by a regular expression, also in docstrings, and copies what they name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert set(get_relative_imports(file)) == imported


def test_exported_files_have_unique_names():
    """They are copied side by side into one folder."""
    names = [file.name for file in exported_files()]
    assert len(names) == len(set(names))
    assert {"configuration_ide3d.py", "grounding_ide3d.py", "modeling_ide3d.py", "processing_ide3d.py"} <= set(names)


def private_names_of_torch(tree: ast.AST) -> list[str]:
    """Names such as `torch._C` or `torch.utils._pytree` that a file imports or looks up."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
    return [name for name in found if re.match(r"torch(\.\w+)*\._[a-z]", name, re.IGNORECASE)]


@pytest.mark.parametrize("file", python_files("modeling_ide3d", "processing", "trainer"), ids=module_name)
def test_private_names_of_torch_are_in_one_package_and_one_module(file):
    found = private_names_of_torch(ast.parse(file.read_text(encoding="utf-8")))
    assert found == [] or module_name(file).startswith(("trainer.planning.", "modeling_ide3d.shared_prefix"))


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import torch\ntorch._C.f()", 2),
        ("from torch.utils._pytree import tree_map", 1),
        ("from torch._subclasses import FakeTensor", 1),
        ("import torch.nn as nn\nfrom torch import nn\ntorch.nn.functional.relu(x)\ntorch.__version__", 0),
    ],
)
def test_private_names_are_seen(source, count):
    assert len(private_names_of_torch(ast.parse(source))) == count


@pytest.mark.parametrize(
    ("name", "source", "crossed"),
    [
        ("modeling_ide3d.grounding_ide3d", "import torch\nfrom .configuration_ide3d import X", []),
        ("modeling_ide3d.modeling_ide3d", "def f():\n    from processing import X", ["processing"]),
        ("modeling_ide3d.modeling_ide3d", "from .auxiliary.heads import X", ["modeling_ide3d.auxiliary.heads"]),
        ("modeling_ide3d.auxiliary.heads", "from modeling_ide3d.modeling_ide3d import X", []),
        ("modeling_ide3d.auxiliary.heads", "from trainer.losses import X", ["trainer.losses"]),
        ("modeling_ide3d.auxiliary.heads", "from modeling_ide3d import conversion", ["modeling_ide3d.conversion"]),
        (
            "modeling_ide3d.auxiliary.heads",
            "from modeling_ide3d.convert_llava_qwen import X",
            ["modeling_ide3d.convert_llava_qwen"],
        ),
        ("modeling_ide3d.conversion.names", "from modeling_ide3d.auxiliary import X", ["modeling_ide3d.auxiliary"]),
        ("modeling_ide3d.convert_llava_qwen", "from modeling_ide3d.conversion.convert import X", []),
        ("modeling_ide3d.grounding_ide3d", "from modeling_ide3d import conversion", ["modeling_ide3d.conversion"]),
        ("processing.rooms.render.images", "from trainer.geometry import X", ["trainer.geometry"]),
        ("processing.rooms.render.images", "from processing.regions import X", []),
        ("trainer.geometry.cameras", "if TYPE_CHECKING:\n    import trainer.losses.x", ["trainer.losses.x"]),
        ("trainer.losses.depth", "from ..geometry import X", []),
        ("trainer.losses.depth", "from trainer import x", ["trainer"]),
        ("trainer.losses.depth", "from trainer import geometry", []),
        ("trainer.ide3d_trainer", "import modeling_ide3d.auxiliary, processing.rooms, trainer.losses", []),
        ("trainer.ide3d_trainer", "from examples.train import x", ["examples.train"]),
        ("processing.regions", "from tests.conftest import x", ["tests.conftest"]),
        ("examples.train", "import trainer, processing, ide3d", []),
        ("ide3d.commands.rooms", "from trainer.evaluation import X\nfrom modeling_ide3d.conversion import Y", []),
        ("ide3d.command", "from examples.train import x", ["examples.train"]),
        (
            "trainer.recipes.run",
            "from trainer.export import X\nimport trainer.nano, trainer.loop, trainer.planning",
            [],
        ),
        ("trainer.recipes.run", "from trainer.evaluation.rooms import X", ["trainer.evaluation.rooms"]),
        ("trainer.export", "from trainer.recipes import X", ["trainer.recipes"]),
        ("trainer.loop.mixture", "from ..ide3d_trainer import X", ["trainer.ide3d_trainer"]),
        ("trainer.supervision.criterion", "from trainer.loop import X", ["trainer.loop"]),
        ("trainer.data.chats", "from trainer.data_collator import X", ["trainer.data_collator"]),
        ("trainer.model_card", "from trainer.nano import X", ["trainer.nano"]),
        ("trainer.session.memory", "from trainer.data import X", ["trainer.data"]),
        ("trainer.session.memory", "from modeling_ide3d.auxiliary import X", ["modeling_ide3d.auxiliary"]),
        ("trainer.evaluation.runner", "import trainer.session, trainer.data.chats, trainer.geometry", []),
        ("trainer.evaluation.runner", "from trainer.losses import X", ["trainer.losses"]),
        ("trainer.evaluation.metrics.boxes", "from trainer.evaluation.runner import X", ["trainer.evaluation.runner"]),
        ("trainer.data_collator", "from ide3d import TokenGrid", ["ide3d"]),
        ("trainer.teachers.__main__", "from ide3d.command import main", ["ide3d.command"]),
        ("trainer.teachers.loading", "if __name__ == '__main__':\n    import ide3d", ["ide3d"]),
        ("processing.rooms.scene.layout", "from processing.rooms import dataset", ["processing.rooms"]),
        ("processing.benchmarks.readers.tasks", "from processing.benchmarks.prompts import X", []),
        (
            "processing.benchmarks.readers.tasks",
            "import processing.benchmarks.doctor",
            ["processing.benchmarks.doctor"],
        ),
        ("processing.posed_video", "from processing.benchmarks import X", ["processing.benchmarks"]),
    ],
)
def test_borders_are_seen(name, source, crossed):
    assert crossed_borders(ast.parse(source), name) == crossed


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import math\nimport torch.nn as nn\nfrom .grounding_ide3d import X", 0),
        ("from ..modeling_ide3d import X", 1),
        ("from . import grounding_ide3d", 1),
        ("from .auxiliary.heads import X", 1),
        ("from .convert_llava_qwen import X", 1),
        ("from modeling_ide3d.grounding_ide3d import X", 1),
        ("def f():\n    import torchvision", 1),
        ("if TYPE_CHECKING:\n    import trainer", 1),
        ("try:\n    import av\nexcept ImportError as error:\n    raise", 0),
        ("try:\n    import trainer\nexcept ImportError:\n    pass", 1),
        ("import av", 1),
    ],
)
def test_broken_exports_are_seen(source, wrong):
    assert len(export_violations(ast.parse(source), {"grounding_ide3d"})) == wrong
