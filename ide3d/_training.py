"""Public names of training and export."""

from trainer import (
    GeometrySupervision,
    IDE3DDataCollator,
    IDE3DTrainer,
    IDE3DTrainingArguments,
    export_inference_model,
)

__all__ = [
    "GeometrySupervision",
    "IDE3DDataCollator",
    "IDE3DTrainer",
    "IDE3DTrainingArguments",
    "export_inference_model",
]
