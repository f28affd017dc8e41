"""A stranger who cannot know us."""

import subprocess
import sys
from pathlib import Path

import pytest

STRANGER = Path(__file__).parents[3] / "examples" / "demo" / "stranger.py"


class TestStranger:
    def isolated(self, code: str) -> subprocess.CompletedProcess:
        load = f"import importlib.util; spec = importlib.util.spec_from_file_location('stranger', {str(STRANGER)!r}); "
        load += "stranger = importlib.util.module_from_spec(spec); spec.loader.exec_module(stranger); "
        return subprocess.run([sys.executable, "-I", "-c", load + code], capture_output=True, text=True, cwd="/")

    @pytest.mark.slow
    def test_our_packages_are_out_of_reach_and_loaded_ones_are_noticed(self):
        code = """
stranger.forget_ours()
refused = []
for name in ("processing", "processing.rooms", "modeling_ide3d.configuration_ide3d", "trainer"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        refused.append(str(error))
import json, types, sys
json.loads("{}")  # all else is there
sys.modules["trainer"] = types.ModuleType("trainer")
sys.modules["trainer"].__spec__ = importlib.util.spec_from_loader("trainer", None)
try:
    stranger.forget_ours()
except RuntimeError as error:
    print(len(refused), error)
""".strip()
        done = self.isolated("\n" + code)
        assert done.stdout.startswith("4 trainer can be imported"), done.stderr[-2000:]

    def test_imports_nothing_of_ours(self):
        text = STRANGER.read_text()
        assert not any(f"import {name}" in text or f"from {name}" in text for name in ("processing", "trainer"))
