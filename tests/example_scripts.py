"""Scripts of `examples/` as modules: none of them runs when it is loaded."""

import importlib.util
from pathlib import Path
from types import ModuleType

__all__ = ["EXAMPLES", "load_script"]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load_script(name: str) -> ModuleType:
    """Load a script by its name without the ending, anew at each call."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
