"""A collator, a nano training model and a trainer for tiny samples of an analytic room."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from supervised_hosts import ALL, VIEWS, attach, frames, geometry, teacher
from tiny_hosts import HOSTS, Host
from training_samples import build_collator, build_model, make_sample

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments


@pytest.fixture(scope="module")
def one_thread():
    """For what is compared to the last digit: several threads add up in an order that differs from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def collator() -> IDE3DDataCollator:
    return build_collator()


@pytest.fixture(scope="session")
def _model_of_session() -> IDE3DForConditionalGenerationWithGeometry:
    return build_model()


@pytest.fixture
def model(_model_of_session) -> IDE3DForConditionalGenerationWithGeometry:
    """The nano training model, a copy for each test."""
    return copy.deepcopy(_model_of_session)


@pytest.fixture
def make_trainer(tmp_path: Path, model, collator) -> Callable[..., IDE3DTrainer]:
    """`make_trainer(dataset, output="run", model=..., collator=..., **arguments)` builds a trainer on the CPU."""
    pristine = copy.deepcopy(model)

    def build(dataset: list, output: str = "run", **arguments: Any) -> IDE3DTrainer:
        trained = arguments.pop("model", None)
        collate = arguments.pop("collator", collator)
        of_trainer = ("eval_dataset", "callbacks", "compute_metrics")
        others = {key: arguments.pop(key) for key in of_trainer if key in arguments}
        defaults = {
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "max_steps": 2,
            "seed": 0,
        }
        args = IDE3DTrainingArguments(output_dir=str(tmp_path / output), **{**defaults, **arguments})
        trained = copy.deepcopy(pristine) if trained is None else trained
        return IDE3DTrainer(model=trained, args=args, train_dataset=dataset, data_collator=collate, **others)

    return build


@pytest.fixture(params=HOSTS)
def host(request) -> Host:
    """A family of models that are not ours, one after the other."""
    return HOSTS[request.param]


@pytest.fixture(scope="session")
def qwen() -> Host:
    return HOSTS["qwen2_5_vl"]


@pytest.fixture
def setting(host):
    """A model with its supervision, a batch of two videos, and all targets."""
    samples = [make_sample(VIEWS), make_sample(VIEWS, seed=1)]
    model, inputs = host.build_model().train(), host.build_inputs(frames(*samples))
    supervision = attach(model, loss_weights=ALL)
    targets = {**geometry(*samples), "teacher_features": teacher(supervision, inputs, samples)}
    return model, supervision, inputs, targets
