"""Several processes train and evaluate one model as one process does; those that do not know each other refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from benchmarks.evaluation_processes import BATCH_SIZES, cases, largest_distance, launch
from commanding import run_command
from equal_gradients import CAMERAS, LAYERS, largest_difference, mixture, take_step
from safetensors.torch import load_file
from training_samples import build_model

from trainer import IDE3DTrainingArguments
from trainer.evaluation.probes.run import ProbeSettings, probe_model
from trainer.ide3d_trainer import GEOMETRY_WEIGHTS
from trainer.loop.checks import check_processes
from trainer.processes import SIZES, check_connected, count_launched, join_processes, refuse_several

REPOSITORY = Path(__file__).resolve().parents[2]


def run_two(script: str, *words: object, cwd: Path) -> None:
    """Run a script of the tests in two processes, and fail with what it wrote."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(REPOSITORY / "tests" / script), *map(str, words)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, cwd=cwd)
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[], ["--activation_checkpointing"], ["--fsdp"], ["--fsdp", "--activation_checkpointing"]],
    ids=["plain", "activation checkpointing", "sharded", "sharded, activation checkpointing"],
)
def test_two_processes(tmp_path, options):
    """One has no geometry, no teacher, no region or not even a video in its batch; both stay the same model."""
    run_two("trainer/ddp_training.py", tmp_path, *options, cwd=tmp_path)
    reports = [json.loads((tmp_path / f"report_{rank}.json").read_text()) for rank in (0, 1)]
    assert all(report["largest_difference"] == 0 for report in reports)
    assert all(report["difference_after_resume"] == 0 for report in reports)
    assert all(set(report["sharded"]) == {"--fsdp" in options} for report in reports)
    weights = {"loss_language": 1.0, **reports[0]["weights"]}
    steps = [entry for entry in reports[0]["history"] if "loss" in entry]
    assert len(steps) == 3
    for entry in steps:
        assert entry["loss"] == pytest.approx(
            sum(weight * entry[name] for name, weight in weights.items() if weight), rel=1e-4
        )
        assert entry["loss_language"] > 1
        norms = [value for name, value in entry.items() if name.startswith("grad_norm_")]
        assert entry["grad_norm"] == pytest.approx(sum(norm**2 for norm in norms) ** 0.5, rel=1e-3)
    metrics = reports[0]["metrics"]
    total = sum(weight * metrics.get(f"eval_{name}", 0.0) for name, weight in weights.items())
    assert metrics["eval_loss"] == pytest.approx(total, rel=1e-4)
    assert (tmp_path / "checkpoint-3" / GEOMETRY_WEIGHTS).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--streaming"]], ids=["table", "stream"])
def test_two_processes_share_out_chats(tmp_path, options):
    """In an epoch each row is opened by one of them; a stopped run goes on to the same bytes, and opens the rest."""
    run_two("trainer/chat_processes.py", tmp_path, *options, cwd=tmp_path)
    reports = [json.loads((tmp_path / f"report_{rank}.json").read_text()) for rank in (0, 1)]
    epoch = [set(report["opened"][:4]) for report in reports]
    assert len(epoch[0]) == len(epoch[1]) == 4 and len(epoch[0] | epoch[1]) == 8
    assert reports[0]["whole"] == reports[0]["resumed"] == reports[1]["resumed"]
    for report in reports:
        again = report["opened_again"]
        assert again[:4] == report["opened"][2:6] and len(again) <= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [[], ["--fsdp"], ["--layers"], ["--fsdp", "--layers"], ["--chunks"]],
    ids=" ".join,
)
def test_two_processes_give_the_gradients_of_one(tmp_path, options):
    """And the weights that are saved: sharded ones are gathered whole."""
    run_two("equal_gradients.py", tmp_path, *options, cwd=tmp_path)
    of_two = torch.load(tmp_path / "gradients.pt", weights_only=True)
    layers = LAYERS if "--layers" in options else {}
    of_one = take_step(tmp_path / "one", mixture(), per_device=4, save=True, **CAMERAS, **layers)
    assert largest_difference(of_one, of_two) < 1e-5
    for file in ("model.safetensors", GEOMETRY_WEIGHTS):
        saved = [load_file(folder / "model" / file) for folder in (tmp_path / "one", tmp_path)]
        assert saved[0].keys() == saved[1].keys() and largest_difference(*saved) < 1e-5


@pytest.fixture(scope="session")
def figures_of_one(tmp_path_factory):
    return launch(1, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_evaluation_does_not_depend_on_the_number_of_processes(figures_of_one, tmp_path, processes):
    """Nor on the size of batches: uneven sets, answers of other lengths, samples that fill up the last batches."""
    found = figures_of_one if processes == 1 else launch(processes, tmp_path)
    for name, (samples, _) in cases().items():
        truth = figures_of_one[f"{name}, 1"]
        assert truth["eval_answers"] == len(samples)
        for size in BATCH_SIZES:
            assert largest_distance(truth, found[f"{name}, {size}"]) < 1e-6, (name, size)


@pytest.fixture
def launched(monkeypatch):
    """`launched(WORLD_SIZE="2")` sets the variables of a launcher, and only those."""
    for name in (*SIZES, "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)

    def start(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield start
    AcceleratorState._reset_state(reset_partial_state=True)


HELD_GROUP = """
import gc, pathlib, sys, torch, torch.distributed.nn
from torch.nn.parallel import DistributedDataParallel
from trainer.processes import leave_processes

def train():
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    model.itself = [model]  # as a trainer and its callbacks hold each other

def threads():
    return [name.read_text().strip() for name in pathlib.Path("/proc/self/task").glob("*/comm")]

gc.disable()
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
train()
print(sum("gloo" in name for name in threads()) > 0)
leave_processes()
print(sum("gloo" in name for name in threads()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed by /proc")
def test_no_thread_of_a_group_outlives_it(tmp_path):
    """One that wants the interpreter back while it shuts down aborts the process."""
    done = subprocess.run(
        [sys.executable, "-c", HELD_GROUP, str(tmp_path / "store")], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.split() == ["True", "0"], done.stderr[-2000:]


class TestWhatIsNotConnected:
    """As after `accelerate launch --multi_gpu` on a machine without accelerators."""

    @pytest.mark.parametrize(
        ("variables", "count"),
        [
            ({}, 1),
            ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 1),
            ({"WORLD_SIZE": "", "LOCAL_RANK": "-1"}, 1),
            ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, 2),
            ({"LOCAL_RANK": "2"}, 3),
            ({"OMPI_COMM_WORLD_SIZE": "4"}, 4),
            ({"PMI_SIZE": "2"}, 2),
        ],
    )
    def test_processes_of_a_launcher_are_counted(self, launched, variables, count):
        launched(**variables)
        assert count_launched() == count

    def test_fewer_joined_than_launched(self, launched):
        launched(WORLD_SIZE="3", LOCAL_RANK="1")
        check_connected(SimpleNamespace(num_processes=3, use_distributed=True))
        for state in (
            SimpleNamespace(num_processes=1, use_distributed=False),
            SimpleNamespace(num_processes=3, use_distributed=False),  # counted, but nothing is gathered
        ):
            with pytest.raises(
                ValueError, match="started 3 processes, but only 1 .* use_cpu=True .* ACCELERATE_USE_CPU"
            ):
                check_connected(state)

    def test_without_a_launcher_everything_runs(self, launched):
        launched()
        assert join_processes().num_processes == 1
        refuse_several("A probe")

    def test_joining_is_refused(self, launched):
        join_processes()  # alone, before the variables are set
        launched(WORLD_SIZE="2", LOCAL_RANK="0")
        with pytest.raises(ValueError, match="A launcher started 2 processes, but only 1"):
            join_processes()

    @pytest.mark.skipif(torch.accelerator.is_available(), reason="accelerators would be joined")
    @pytest.mark.parametrize("backend", [None, "gloo"])
    def test_a_training_is_refused(self, launched, monkeypatch, tmp_path, backend):
        # Accelerate opens a group here. It counts one process all the same, or two that gather nothing.
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda **_: None)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
        launched(WORLD_SIZE="2", LOCAL_RANK="1", RANK="1")
        with pytest.raises(ValueError, match="use_cpu=True in the arguments of a training"):
            IDE3DTrainingArguments(output_dir=str(tmp_path), report_to="none", ddp_backend=backend)

    def test_a_probe_is_refused(self, launched, tmp_path):
        launched(WORLD_SIZE="2", LOCAL_RANK="0")
        with pytest.raises(ValueError, match="A probe works in one process, but a launcher started 2"):
            probe_model(ProbeSettings(model=str(tmp_path)))

    @pytest.mark.parametrize(
        "words", [("doctor", "data"), ("export", "run", "export"), ("convert", "a", "b"), ("probe", "--model", "m")]
    )
    def test_commands_for_one_process_are_refused(self, launched, words):
        launched(WORLD_SIZE="2", LOCAL_RANK="0")
        done = run_command(*words, code=1)
        assert f"`ide3d {words[0]}` works in one process, but a launcher started 2" in done.stderr


def test_fsdp_that_would_not_shard_is_refused(make_trainer):
    """On CPUs accelerate trains replicas instead, and says nothing."""
    trainer = make_trainer([])
    trainer.args.fsdp = True
    with pytest.raises(ValueError, match="FSDP is asked for, but accelerate trains with NO, which shards nothing"):
        check_processes(trainer.args, trainer.accelerator.distributed_type, is_sharded=False)


@pytest.mark.parametrize("name", ["max_nonfinite", "loss_chunk_size"])
def test_a_sharded_training_does_not_differ_by_process(make_trainer, name):
    trainer = make_trainer([], **{name: 1})
    with pytest.raises(ValueError, match=f"{name}=1 .* Set {name}=0 with FSDP and DeepSpeed"):
        check_processes(trainer.args, trainer.accelerator.distributed_type, is_sharded=True)


class TestConfigurations:
    FOLDER = REPOSITORY / "examples/recipes/accelerate"

    def test_accelerate_reads_them(self):
        kinds = {}
        for path in sorted(self.FOLDER.glob("*.yaml")):
            config = load_config_from_file(str(path))
            kinds[path.stem] = str(config.distributed_type)
        expected = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
        assert {name: kind.rpartition(".")[2] for name, kind in kinds.items()} == expected

    def test_fsdp_shards_by_layers_and_keeps_whole_checkpoints(self, monkeypatch):
        config = load_config_from_file(str(self.FOLDER / "fsdp2.yaml")).fsdp_config
        for key, value in config.items():
            monkeypatch.setenv(key.upper(), str(value))
        monkeypatch.setenv("FSDP_VERSION", "2")
        plugin = FullyShardedDataParallelPlugin()
        plugin.set_auto_wrap_policy(build_model())
        assert plugin.fsdp_version == 2 and "FULL_STATE_DICT" in str(plugin.state_dict_type)

    @pytest.mark.parametrize("stage", [2, 3])
    def test_deepspeed_settings_are_of_their_stage(self, stage):
        """As far as accelerate reads them without DeepSpeed."""
        path = load_config_from_file(str(self.FOLDER / f"zero{stage}.yaml")).deepspeed_config["deepspeed_config_file"]
        config = HfDeepSpeedConfig(str(REPOSITORY / path))
        assert config.is_zero3() == (stage == 3) and not config.is_offload()
        assert config.get_value("train_micro_batch_size_per_gpu") == "auto"
        gathers = config.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save")
        assert gathers is (True if stage == 3 else None)
