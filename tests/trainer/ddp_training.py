"""Two processes train a few steps; the batch of the second one has no geometry, no regions, or no video at all.

Run by `test_resume.py`: torchrun --nproc_per_node 2 ddp_training.py OUTPUT [--activation_checkpointing]
"""

import json
import os
import sys
from pathlib import Path

import torch
from training_samples import build_collator, build_model, chat, make_grounding_sample, make_sample

from trainer import IDE3DTrainer, IDE3DTrainingArguments


def main() -> None:
    output = Path(sys.argv[1])
    rank = int(os.environ["RANK"])
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
        save_steps=3,
        logging_steps=1,
        max_steps=3,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        learning_rate=3e-3,
        activation_checkpointing="--activation_checkpointing" in sys.argv,
    )
    collator = build_collator()
    trainer = IDE3DTrainer(
        model=build_model(), args=args, train_dataset=samples, eval_dataset=samples[:4], data_collator=collator
    )
    trainer.train()
    metrics = trainer.evaluate()
    state = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    gathered = trainer.accelerator.gather(state[None])
    report = {
        "history": trainer.state.log_history,
        "metrics": metrics,
        "largest_difference": (gathered[0] - gathered[1]).abs().max().item(),
        "weights": args.loss_weights,
    }
    (output / f"report_{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
