"""Public names of what computes."""

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration

__all__ = ["IDE3DConfig", "IDE3DForConditionalGeneration"]
