"""How the cost of a training step at full size grows with frames, questions and samples of a batch.

    PYTHONPATH=. python tests/benchmarks/cost_growth.py

Operations and memory are counted from a fake step (`trainer.planning`), nothing runs: SigLIP-so400m and Qwen2-7B, all
terms of "clean", bfloat16 without activation checkpointing. Printed as JSON: TFLOP, GB of activations where the memory
of the step is at its peak, and the share of each part that has at least 1 % of the operations. A question has 64
tokens. Questions are counted as one text behind the video, with an attention to each other that packed chats lack.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from trainer import IDE3DTrainingArguments
from trainer.planning.step_estimate import estimate_step, make_batch

CONFIG = Path(__file__).parents[2] / "examples" / "recipes" / "ide3d_7b_config.json"
TEACHER_SIZE, QUESTION = 2048, 64
BASE = {"num_frames": 32, "questions": 1, "batch_size": 1}
GROWTH = {"num_frames": (8, 16, 32, 64), "questions": (1, 8, 16, 32, 64), "batch_size": (1, 2, 4)}


def estimate(num_frames: int, questions: int, batch_size: int) -> dict[str, Any]:
    """Count a step."""
    config = IDE3DConfig.from_json_file(CONFIG)
    with torch.device("meta"):
        validator = GeometricValidatorConfig.from_vision_config(config.vision_config, protocol="clean")
        model = IDE3DForConditionalGenerationWithGeometry(config, validator, TEACHER_SIZE)
    args = IDE3DTrainingArguments(output_dir="unused", report_to="none", use_cpu=True, bf16=True, protocol="clean")
    batch = make_batch(
        config,
        batch_size=batch_size,
        num_frames=num_frames,
        text_tokens=QUESTION * questions,
        teacher_size=TEACHER_SIZE,
    )
    found = estimate_step(model.to(torch.bfloat16), batch, args)
    total = sum(found.operations.values())
    return {
        "tflop": total / 1e12,
        "activations_gb": sum(found.activations.values()) / 1e9,
        "shares": {part: round(count / total, 3) for part, count in found.operations.items() if count >= 0.01 * total},
    }


def main() -> None:
    """Print a row for each value of each number."""
    rows = [{name: value, **estimate(**{**BASE, name: value})} for name, values in GROWTH.items() for value in values]
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
