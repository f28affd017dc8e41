"""What an import loads, in a process of its own: losses and geometry need torch, the door next to nothing."""

import pytest
from benchmarks.import_times import measure

HEAVY = {"transformers.trainer", "datasets", "pandas"}


@pytest.fixture(scope="module")
def torch_modules():
    return measure("import torch")[1]


@pytest.mark.parametrize("package", ["trainer.losses", "trainer.geometry"])
def test_every_name_of_losses_and_geometry_loads_little_more_than_torch(package, torch_modules):
    _, modules = measure(f"from {package} import *")
    assert {f"{package}.checks", f"{package}.blocks"} & modules, "no module of the package was loaded"
    assert "torch" in modules
    assert len(modules) <= 1.15 * len(torch_modules), sorted(modules - torch_modules)
    assert not modules & HEAVY


@pytest.mark.parametrize("package", ["trainer.losses", "trainer.geometry", "trainer", "processing", "ide3d"])
def test_packages_load_nothing_until_a_name_is_touched(package):
    _, modules = measure(f"import {package}")
    assert not modules & {"torch", "transformers", "numpy", *HEAVY}


def test_the_command_loads_neither_torch_nor_transformers():
    _, modules = measure("import ide3d.command; ide3d.command.app")
    assert not modules & {"torch", "transformers", "numpy", *HEAVY}


def test_the_door_takes_no_longer_than_transformers():
    assert measure("import ide3d")[0] <= 1.1 * measure("import transformers")[0]
