"""Two processes train a few steps; the batch of the second one has no geometry, no regions, or no video at all.

Run by `test_processes.py`: torchrun --nproc_per_node 2 ddp_training.py OUTPUT [--activation_checkpointing] [--fsdp]
"""

import json
import os
import sys
from pathlib import Path

import torch
from cpu_fsdp import enable_fsdp_on_cpu
from torch.distributed.tensor import DTensor
from training_samples import build_collator, build_model, chat, make_grounding_sample, make_sample

from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.processes import leave_processes

FSDP = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT"}


def main() -> None:
    output = Path(sys.argv[1])
    rank = int(os.environ["RANK"])
    is_sharded = "--fsdp" in sys.argv
    if is_sharded:
        enable_fsdp_on_cpu()
    # The sampler deals the batches out in turn: even samples go to the first process, odd ones to the second.
    samples = [
        make_sample(2, teacher=True),
        {"messages": chat(kind=None)},
        make_grounding_sample(2, seed=1, teacher=True),
        make_sample(1, geometry=False, seed=2),
        make_sample(3, seed=3),
        make_sample(2, geometry=False, seed=4, messages=[chat(), chat("Name it.", "The ball")]),
    ]
    args = IDE3DTrainingArguments(
        output_dir=str(output),
        use_cpu=True,
        ddp_backend="gloo",
        report_to="none",
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=2,
        logging_steps=1,
        max_steps=3,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        learning_rate=3e-3,
        activation_checkpointing="--activation_checkpointing" in sys.argv,
        fsdp=is_sharded,
        fsdp_config=dict(FSDP) if is_sharded else None,
    )

    def build_trainer(seed: int) -> IDE3DTrainer:
        return IDE3DTrainer(
            model=build_model(seed=seed),
            args=args,
            train_dataset=samples,
            eval_dataset=samples[:4],
            data_collator=build_collator(),
        )

    def read_parameters(trainer: IDE3DTrainer) -> torch.Tensor:
        values = (parameter.detach() for parameter in trainer.model.parameters())
        return torch.cat([(v.full_tensor() if isinstance(v, DTensor) else v).flatten() for v in values])

    trainer = build_trainer(seed=0)
    trainer.train()
    sharded = [isinstance(parameter, DTensor) for parameter in trainer.model.parameters()]
    metrics = trainer.evaluate()
    state = read_parameters(trainer)
    gathered = trainer.accelerator.gather(state[None].contiguous())
    # Another start: everything that matters has to come from the checkpoint.
    resumed = build_trainer(seed=9)
    resumed.train(resume_from_checkpoint=str(output / "checkpoint-2"))
    report = {
        "history": trainer.state.log_history,
        "metrics": metrics,
        "largest_difference": (gathered[0] - gathered[1]).abs().max().item(),
        "difference_after_resume": (read_parameters(resumed) - state).abs().max().item(),
        "sharded": sharded,
        "weights": args.loss_weights,
    }
    (output / f"report_{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
    leave_processes()
