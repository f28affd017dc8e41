"""The job of Slurm: its command line is accelerate's, and two nodes train, stop and go on; srun is a stand-in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from trainer.export import is_export
from trainer.loop.checkpoints import get_last_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "examples" / "jobs" / "launch.sbatch"
CONFIGS = sorted((REPOSITORY / "examples" / "recipes" / "accelerate").glob("*.yaml"))
# What Slurm brings: the same command on both nodes at once, and the names of the nodes.
SRUN = """#!/bin/bash
shift
for node in 0 1; do SLURM_NODEID=$node "$@" & done
wait -n && wait -n
"""
SCONTROL = "#!/bin/bash\nprintf '127.0.0.1\\nnode2\\n'\n"
ACCELERATE = '#!/bin/bash\nprintf "%s\\n" "$@" > "words.$SLURM_NODEID"\n'


def run_job(folder: Path, words: list, programs: dict[str, str], **changes: str) -> str:
    """Run the job on two nodes, which are this machine, with stand-ins for programs; return what it said."""
    for name, text in programs.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": str(os.getpid()),  # the port follows from it
        "SLURM_JOB_NODELIST": "node[1-2]",
        "CONFIG": str(REPOSITORY / "examples" / "recipes" / "accelerate" / "ddp.yaml"),
        **changes,
    }
    command = ["bash", str(JOB), *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_command_line_of_each_node_is_one_of_accelerate(config, tmp_path):
    words = ["-m", "trainer.evaluation", "--data", "a folder"]
    programs = {"srun": SRUN, "scontrol": SCONTROL, "accelerate": ACCELERATE}
    run_job(tmp_path, words, programs, CONFIG=str(config), SLURM_GPUS_ON_NODE="8")
    for node in range(2):
        launch, *told = (tmp_path / f"words.{node}").read_text().splitlines()
        assert launch == "launch"
        parsed = launch_command_parser().parse_args(told)
        assert (parsed.num_machines, parsed.num_processes, parsed.machine_rank) == (2, 16, node)
        assert parsed.main_process_ip == "127.0.0.1" and 20000 <= parsed.main_process_port < 30000
        assert parsed.config_file == str(config) and parsed.deepspeed_multinode_launcher == "standard"
        assert parsed.module and parsed.training_script == "trainer.evaluation"
        assert parsed.training_script_args == words[2:]


@pytest.mark.slow
def test_two_nodes_train_and_go_on_from_the_last_whole_checkpoint(tiny_recipe, tmp_path):
    words = [REPOSITORY / "examples" / "train.py", tiny_recipe(max_steps=2)]
    programs, out = {"srun": SRUN, "scontrol": SCONTROL}, tmp_path / "out"
    said = run_job(tmp_path, words, programs)
    assert "Resuming from" not in said and is_export(out / "export")
    for process in range(2):
        assert (out / "checkpoint-2" / f"rng_state_{process}.pth").is_file()
    (out / "checkpoint-2" / "trainer_state.json").unlink()  # as where the job was killed before it was written
    said = run_job(tmp_path, [*words, "--max_steps", "3"], programs)
    assert f"Resuming from {out / 'checkpoint-1'}" in said
    assert Path(get_last_checkpoint(out)).name == "checkpoint-3"
