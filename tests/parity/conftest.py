"""Access to the golden vectors made by the original implementation."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parents[2]


def golden_folder() -> Path:
    """The folder of golden vectors: `IDE3D_GOLDEN`, or `../shared/golden` beside the repository."""
    return Path(os.environ.get("IDE3D_GOLDEN", REPOSITORY.parent / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden_path() -> Callable[[str], Path]:
    """Path of a golden file; skips the test, with the reason, where there is none."""

    def find(name: str) -> Path:
        path = golden_folder() / name
        if not path.exists():
            pytest.skip(f"no golden file {path}; set IDE3D_GOLDEN to the folder that holds it")
        return path

    return find


@pytest.fixture(scope="session")
def golden(golden_path) -> Callable[[str], dict[str, torch.Tensor]]:
    """Tensors of a golden safetensors file, by key."""
    return lambda name: load_file(golden_path(name))


@pytest.fixture(scope="session")
def golden_json(golden_path) -> Callable[[str], dict]:
    """Content of a golden JSON file."""
    return lambda name: json.loads(golden_path(name).read_text())
