"""Losses: tensors in, one unweighted scalar out, computed in float32. No loss has weights or reads a config."""

from trainer.losses.cross_view_depth import CrossViewDepthLoss
from trainer.losses.depth_regression import DepthLossTerms, DepthRegressionLoss
from trainer.losses.feature_distillation import FeatureDistillationLoss
from trainer.losses.region_contrast import RegionContrastLoss
from trainer.losses.view_consistency import ViewConsistencyLoss

__all__ = [
    "CrossViewDepthLoss",
    "DepthLossTerms",
    "DepthRegressionLoss",
    "FeatureDistillationLoss",
    "RegionContrastLoss",
    "ViewConsistencyLoss",
]
