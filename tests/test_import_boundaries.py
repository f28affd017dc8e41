"""Who may import whom, and what a file may import that is copied into every export."""

import ast
import re
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

REPOSITORY = Path(__file__).resolve().parents[1]

CORE, PROCESSING = "modeling_ide3d", "processing"
AUXILIARY, CONVERSION = "modeling_ide3d.auxiliary", "modeling_ide3d.conversion"
TRAINER, LOSSES, GEOMETRY = "trainer", "trainer.losses", "trainer.geometry"
LIBRARY = {CORE, AUXILIARY, CONVERSION, PROCESSING, TRAINER, LOSSES, GEOMETRY}
# The table of the architecture. Every room may import itself.
MAY_IMPORT = {
    "examples": LIBRARY,
    TRAINER: {CORE, AUXILIARY, PROCESSING, LOSSES, GEOMETRY},
    AUXILIARY: {CORE},
    CONVERSION: {CORE},
    LOSSES: {GEOMETRY},
    CORE: set(),
    PROCESSING: set(),
    GEOMETRY: set(),
}
# Public modules outside the package that they open.
DOORS = {f"modeling_ide3d.{kind}_llava_qwen": CONVERSION for kind in ("convert", "restore")}
TOP_LEVEL = {"modeling_ide3d", "processing", "trainer", "examples", "tests"}
EXPORTED_ROOMS = (CORE, PROCESSING)
EXPORT_MAY_IMPORT = {"torch", "numpy", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)
# What reads a file from disk stands in a `try:` and is needed by those who have such a file.
EXPORT_MAY_TRY = {"PIL", "av"}


def python_files(*rooms: str) -> list[Path]:
    return sorted(file for room in rooms for file in (REPOSITORY / room).rglob("*.py"))


def exported_files() -> list[Path]:
    """Files that a checkpoint carries: `*_ide3d.py` directly inside the two rooms."""
    return [file for room in EXPORTED_ROOMS for file in sorted((REPOSITORY / room).glob("*_ide3d.py"))]


def room_of(module: str) -> str | None:
    """The smallest room that holds a dotted module name, None for what is not ours."""
    module = DOORS.get(module, module)
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
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            # `from trainer import geometry` imports trainer.geometry, if there is such a room
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MAY_IMPORT else base for alias in node.names}
    return found


def crossed_borders(tree: ast.AST, name: str, is_package: bool = False) -> list[str]:
    """Modules of other rooms that the module `name` must not import."""
    own = room_of(name)
    targets = sorted(imported_modules(tree, name, is_package))
    return [module for module in targets if (room := room_of(module)) and room not in {own, *MAY_IMPORT[own]}]


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


@pytest.mark.parametrize("file", python_files("modeling_ide3d", "processing", "trainer", "examples"), ids=module_name)
def test_rooms_import_only_what_the_table_allows(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert crossed_borders(tree, module_name(file), file.stem == "__init__") == []


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
def test_private_names_of_torch_are_in_one_package(file):
    found = private_names_of_torch(ast.parse(file.read_text(encoding="utf-8")))
    assert found == [] or module_name(file).startswith("trainer.planning.")


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
        ("examples.train", "import trainer, processing", []),
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
