"""Gradients of joined models in two processes and in one: DDP and FSDP2, adapters, accumulation, checkpointing.

Run by `test_joined_processes.py`: torchrun --nproc_per_node 2 joined_processes.py OUTPUT SETTING...
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from peft import LoraConfig, get_peft_model
from supervised_hosts import ALL, attach, frames, geometry, hooks, teacher
from tiny_hosts import HOSTS
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from training_samples import make_sample

from trainer import GeometrySupervision
from trainer.processes import leave_processes
from trainer.supervision.joined_model import HEADS_NAME

HOST = HOSTS["qwen2_5_vl"]
ADAPTERS = {"target_modules": r".*(visual\.blocks.*(qkv|proj)|language_model.*(q_proj|v_proj))", "r": 4}
# Geometry and teacher, a video alone, depth alone, longer with holes, no video: one for each process and micro-batch.
SAMPLES = [make_sample(4), make_sample(2, seed=1), make_sample(2, seed=2), make_sample(4, seed=3), None]
KINDS = ["all", "nothing", "depth", "geometry", "nothing"]
TEXT = 4
LAYERS, CAMERAS = ["vision.1", "language.1", "language.2"], {"loss_pose": 1.0, "loss_scale": 1.0}
RATE = 0.01


def build_batch(supervision: GeometrySupervision, chosen: list[int]) -> dict[str, Any]:
    samples = [SAMPLES[index] for index in chosen]
    inputs = HOST.build_inputs(frames(*samples))
    given: dict[str, Any] = {"teacher_features": teacher(supervision, inputs, samples)}
    given |= geometry(*samples)
    for row, index in enumerate(chosen):
        kind = KINDS[index]
        kept = {"all": set(given), "nothing": set(), "depth": {"depth"}, "geometry": set(given) - {"teacher_features"}}
        for name in set(given) - kept[kind]:
            given[name][row] = None
        if kind == "geometry":
            given["depth"][row][:, :20] = 0
    return inputs | {name: values for name, values in given.items() if any(value is not None for value in values)}


def build_model(words: set[str]) -> tuple[nn.Module, GeometrySupervision]:
    model = HOST.build_model().train()
    if "checkpointing" in words:
        model.activation_checkpointing_enable({"use_reentrant": False})
    options = {"distillation_layers": LAYERS, "camera_layer": "vision.1"} if "layers" in words else {}
    supervision = attach(model, loss_weights={**ALL, **(CAMERAS if "layers" in words else {})}, **options)
    whole = model
    if "lora" in words:
        torch.manual_seed(3)
        whole = get_peft_model(model, LoraConfig(**ADAPTERS, init_lora_weights=False)).train()
    supervision.join(whole)
    return whole, supervision


def run_step(called: nn.Module, supervision: GeometrySupervision, parts: list[list[int]], words: set[str]) -> None:
    batches = [build_batch(supervision, part) for part in parts]
    if "prepared" in words:
        batches = supervision.prepare_step(batches)
    for batch in batches:
        (called(**batch).loss / len(batches)).backward()


def step_weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients, and the weights after a step of gradient descent, whole in every process."""
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    torch.optim.SGD(model.parameters(), RATE).step()
    values = ({**gradients}, dict(model.named_parameters()))
    return tuple(
        {
            name: value.full_tensor().detach() if isinstance(value, DTensor) else value.detach().clone()
            for name, value in of_names.items()
        }
        for of_names in values
    )


def largest_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Largest difference of two sets of tensors, relative to the largest number of the first."""
    scale = max(value.abs().max() for value in left.values())
    return max(float((left[name] - right[name]).abs().max() / scale) for name in left)


def shard(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if type(part).__name__ in ("Qwen2_5_VLVisionBlock", "Qwen2_5_VLDecoderLayer"):
            fully_shard(part)
    return fully_shard(model)


def deal(words: set[str]) -> list[list[list[int]]]:
    """Micro-batches of the first process, of the second one, and of one process alone."""
    if "text" in words:
        return [[[0]], [[TEXT]], [[0, TEXT]]]
    if "accumulation" not in words:
        return [[[0]], [[1]], [[0, 1]]]
    # Prepared, a term is a mean over the whole step: one batch gives what four give.
    return [[[0], [2]], [[1], [3]], [[0, 1, 2, 3]] if "prepared" in words else [[0, 1], [2, 3]]]


def compare(words: set[str], rank: int, expected: tuple[dict, dict], folder: Path) -> dict[str, Any]:
    model, supervision = build_model(words)
    if "fsdp" in words:
        wrapped = shard(model)
    else:
        # Without a video the vision tower is idle, which DDP has to look for.
        wrapped = DistributedDataParallel(model, find_unused_parameters="text" in words)
    sharded = sorted({isinstance(weight, DTensor) for weight in model.parameters()})
    run_step(wrapped, supervision, deal(words)[rank], words)
    gradients, weights = step_weights(model)
    of_heads = [float(value.abs().max()) for name, value in expected[0].items() if HEADS_NAME in name]
    report = {
        "sharded": sharded,
        "same names": [*map(sorted, (gradients, weights))] == [*map(sorted, expected)],
        "gradients": largest_difference(expected[0], gradients),
        "weights": largest_difference(expected[1], weights),
        "all heads moved": min(of_heads) > 0,
    }
    supervision.detach()
    if "lora" in words:
        return report
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=whole) if "fsdp" in words else model.state_dict()
    fresh = HOST.build_model().train()
    if rank == 0:
        fresh.load_state_dict(state)
        for name, saved, given in (("trained", model, state), ("fresh", fresh, None)):
            saved.save_pretrained(folder / name, state_dict=given)
        loaded, info = type(fresh).from_pretrained(folder / "trained", output_loading_info=True)
        report["loads"] = not any(info.values()) and all(map(torch.equal, loaded.parameters(), fresh.parameters()))
        files = [{file.name: file.read_bytes() for file in (folder / n).iterdir()} for n in ("trained", "fresh")]
        report["same bytes"] = files[0] == files[1]
    if "fsdp" not in words:
        if "checkpointing" in words:
            fresh.activation_checkpointing_enable({"use_reentrant": False})
        fresh(**HOST.build_inputs(frames(SAMPLES[0])))  # Transformers puts hooks of its own when a model first runs
        report["same hooks"] = hooks(model) == hooks(fresh) and type(model) is type(fresh)
    return report


def main() -> None:
    folder, settings, rank = Path(sys.argv[1]), sys.argv[2:], int(os.environ["RANK"])
    torch.set_num_threads(1)
    expected = {}
    for setting in settings:  # before the processes know each other
        words = set(setting.split())
        model, supervision = build_model(words)
        run_step(model, supervision, deal(words)[2], words)
        expected[setting] = step_weights(model)
    torch.distributed.init_process_group("gloo")
    report = {
        setting: compare(set(setting.split()), rank, expected[setting], folder / setting) for setting in settings
    }
    if rank == 0:
        (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
    leave_processes()
