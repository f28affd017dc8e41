"""Old import paths of modules that have moved; each works for one release and warns."""

import importlib
import runpy
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

__all__ = ["MOVED_MODULES", "MovedModules", "keep_names", "run_command"]

# Old path: new path. The table goes with version 0.3.
MOVED_MODULES = {
    "processing.benchmarks.annotations": "processing.benchmarks.readers.annotations",
    "processing.benchmarks.export_pickle_free": "processing.benchmarks.export.pickle_free",
    "processing.benchmarks.export_rooms": "processing.benchmarks.export.rooms",
    "processing.benchmarks.files": "processing.benchmarks.readers.files",
    "processing.benchmarks.findings": "processing.benchmarks.doctor.findings",
    "processing.benchmarks.room_annotations": "processing.benchmarks.export.annotations",
    "processing.benchmarks.room_files": "processing.benchmarks.export.files",
    "processing.benchmarks.room_vsi": "processing.benchmarks.export.vsi",
    "processing.benchmarks.scene_checks": "processing.benchmarks.doctor.scene_checks",
    "processing.benchmarks.scenes": "processing.benchmarks.readers.scenes",
    "processing.benchmarks.task_checks": "processing.benchmarks.doctor.task_checks",
    "processing.benchmarks.tasks": "processing.benchmarks.readers.tasks",
    "processing.benchmarks.teacher": "processing.benchmarks.readers.teacher",
    "processing.rooms.baselines": "processing.rooms.questions.baselines",
    "processing.rooms.camera": "processing.rooms.scene.camera",
    "processing.rooms.furniture": "processing.rooms.scene.furniture",
    "processing.rooms.layout": "processing.rooms.scene.layout",
    "processing.rooms.loft_furniture": "processing.rooms.scene.loft_furniture",
    "processing.rooms.palette": "processing.rooms.scene.palette",
    "processing.rooms.primitives": "processing.rooms.scene.primitives",
    "processing.rooms.raycast": "processing.rooms.render.raycast",
    "processing.rooms.scoring": "processing.rooms.questions.scoring",
    "processing.rooms.shading": "processing.rooms.render.shading",
    "processing.rooms.shell": "processing.rooms.scene.shell",
    "processing.rooms.small_things": "processing.rooms.scene.small_things",
    "processing.rooms.styles": "processing.rooms.scene.styles",
    "processing.rooms.textures": "processing.rooms.render.textures",
    "processing.rooms.wording": "processing.rooms.questions.wording",
}


class MovedModules(MetaPathFinder, InspectLoader):
    """Finder that gives an old path the module of its new one, after other finders.

    Args:
        table: New dotted path of each old dotted path.
    """

    def __init__(self, table: Mapping[str, str]):
        self.table = dict(table)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None):
        """Return a spec for an old path, None for any other."""
        return ModuleSpec(fullname, self) if fullname in self.table else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new path into the place of the empty one."""
        name = module.__name__
        warn_of_move(name, self.table[name])
        sys.modules[name] = importlib.import_module(self.table[name])

    def get_source(self, fullname: str) -> str:
        """Return a program that runs the new module, for `python -m` with the old path."""
        return f"import runpy; runpy.run_module({self.table[fullname]!r}, run_name='__main__', alter_sys=True)"

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of `get_source`."""
        warn_of_move(fullname, self.table[fullname])
        return self.source_to_code(self.get_source(fullname))

    def install(self) -> None:
        """Add this finder behind all others."""
        sys.meta_path.append(self)


def warn_of_move(old: str, new: str) -> None:
    """Warn that a path is deprecated and name the new one."""
    # Level 3 is the importing line: Python leaves the frames of importlib out of the count.
    message = f"`{old}` has moved to `{new}`. The old path goes with version 0.3."
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def keep_names(module: str, names: Mapping[str, str], own: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a module-level `__getattr__` that also knows names which live elsewhere now.

    Args:
        module: Dotted path of the module.
        names: New module of each old name.
        own: The module's `__getattr__` for all other names.
    """

    def get(name: str) -> Any:
        if name not in names:
            return own(name)
        warn_of_move(f"{module}.{name}", f"{names[name]}.{name}")
        return getattr(importlib.import_module(names[name]), name)

    return get


def run_command(*names: str) -> None:
    """Run a command of `ide3d` on the words of the process, for `python -m`.

    Args:
        *names: Name of the command, such as `"rooms", "measure"`.
    """
    sys.argv[1:1] = names
    # By name: no package imports the one above all of them.
    runpy.run_module("ide3d", run_name="__main__", alter_sys=True)
