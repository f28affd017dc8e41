"""How it learns and how it is measured: trainer, collator, losses, geometry, teachers, export."""

from trainer.data_collator import IDE3DDataCollator
from trainer.export import export_inference_model
from trainer.geometry_supervision import GeometrySupervision
from trainer.ide3d_trainer import IDE3DTrainer
from trainer.training_arguments import IDE3DTrainingArguments

__all__ = [
    "GeometrySupervision",
    "IDE3DDataCollator",
    "IDE3DTrainer",
    "IDE3DTrainingArguments",
    "export_inference_model",
]
