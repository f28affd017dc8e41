"""A model that holds its heads trains in two processes as in one, by DDP and FSDP2, and is detached as it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SETTINGS = (
    "ddp",
    "ddp text",
    "ddp accumulation",
    "ddp accumulation prepared",
    "ddp checkpointing",
    "ddp lora checkpointing",
    "ddp layers checkpointing",
    "fsdp",
    "fsdp accumulation",
    "fsdp accumulation prepared",
    "fsdp checkpointing",
    "fsdp lora checkpointing",
    "fsdp layers",
    "fsdp layers checkpointing",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Figures of all settings from one start of two processes."""
    folder = tmp_path_factory.mktemp("joined")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(Path(__file__).with_name("joined_processes.py")), str(folder), *SETTINGS]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, cwd=folder)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_two_processes_give_the_gradients_of_one(report, setting):
    """One process has no geometry; all weights of the heads are reduced all the same."""
    found = report[setting]
    assert found["sharded"] == ["fsdp" in setting]
    assert found["same names"] and found["all heads moved"]
    assert found["gradients"] < 1e-5 and found["weights"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if "lora" not in setting])
def test_a_detached_model_is_as_it_was(report, setting):
    found = report[setting]
    assert found["loads"]
    if "ddp" in setting:
        # Transformers names the weights of an FSDP2 class as in memory: loadable, and other bytes.
        assert found["same bytes"] and found["same hooks"]
