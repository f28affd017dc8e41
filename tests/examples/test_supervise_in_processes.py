"""The three scripts of joined supervision, in one process and in two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Qwen2_5_VLForConditionalGeneration

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = ("supervise_with_trainer", "supervise_with_accelerate", "supervise_with_trl")
WORDS = ["--rooms", "4", "--steps", "2", "--cpu"]


def check_saved(folder):
    """The model is itself again."""
    loaded, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any("geometry_supervision" in name for name in loaded.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_one_process(example, script, tmp_path):
    if script == "supervise_with_trl":
        pytest.importorskip("trl")
    example(script).main([*WORDS, "--output", str(tmp_path / "model")])
    check_saved(tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--standalone", "--nproc_per_node=2"],
        ["accelerate.commands.launch", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--cpu"],
    ],
    ids=["torchrun", "accelerate launch"],
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes(script, launcher, tmp_path):
    if script == "supervise_with_trl":
        pytest.importorskip("trl")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", *launcher, str(REPOSITORY / "examples" / f"{script}.py"), *WORDS]
    command += ["--output", str(tmp_path / "model")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    check_saved(tmp_path / "model")
