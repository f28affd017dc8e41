"""Loss of relative camera poses: where one frame of a video was taken, as seen from another frame."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.geometry.checks import to_float
from trainer.losses.blocks import graph_zero

__all__ = ["RelativePoseLoss", "measure_pose_errors", "rotation_from_columns"]

POSE_SIZE = 9  # Translation, and two columns of the rotation.
CITATION_GEOVR = """@misc{geovr2026,
  title = {Learning Geometric Representations from Videos for Spatial Intelligent Multimodal Large Language Models},
  year = {2026},
  eprint = {2606.05833},
  archivePrefix = {arXiv}
}"""
CITATION_SIX_NUMBERS = """@inproceedings{zhou2019continuity,
  title = {On the Continuity of Rotation Representations in Neural Networks},
  author = {Zhou, Yi and Barnes, Connelly and Lu, Jingwan and Yang, Jimei and Li, Hao},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2019}
}"""


def rotation_from_columns(columns: Tensor) -> Tensor:
    """Return the rotation whose first two columns are nearest in order to six numbers.

    The first column is the unit vector of the first three numbers. The second one is the unit vector of the other
    three after their part along the first column was taken away; the third is the cross product (Zhou et al. 2019).

    Shape:
        columns: (..., 6), first column and then second column.
        output:  (..., 3, 3).
    """
    columns = to_float(columns)
    first = F.normalize(columns[..., :3], dim=-1)
    second = columns[..., 3:]
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)


@torch.no_grad()
def measure_pose_errors(predicted: Tensor, target_from_source: Tensor, mean_depth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the errors of predicted poses in degrees and in percent of the mean depth.

    Shape:
        predicted:          (N, 9), as in `RelativePoseLoss`.
        target_from_source: (N, 4, 4), metres.
        mean_depth:         (N,), metres.
        output:             angles (N,) in degrees, 0 to 180, and distances (N,) in percent.
    """
    _check_shapes(predicted, target_from_source, mean_depth)
    rotation = rotation_from_columns(predicted[:, 3:])
    chord = torch.linalg.matrix_norm(rotation - target_from_source[:, :3, :3].to(rotation))
    # By the chord: the arc cosine of a trace loses all digits near 0 degrees.
    angle = 2 * torch.asin((chord / 8**0.5).clamp(max=1.0))
    translation = target_from_source[:, :3, 3] / mean_depth[:, None]
    return angle.rad2deg(), 100 * torch.linalg.vector_norm(predicted[:, :3] - translation, dim=-1)


class RelativePoseLoss(nn.Module):
    """Huber loss of the pose of one frame's camera in the frame of another one.

    A pose is nine numbers: the translation over the scene's mean depth, so that it has no unit, and the first two
    columns of the rotation. The loss of a pair is the mean Huber loss of the three numbers plus that of the six. The
    loss is the mean over the pairs by their weights. Which frame is the reference is a choice: pairs are given in
    both directions, so that no frame has a part of its own.

    Source: GeoVR (arXiv 2606.05833) trains a language model on camera poses between frames; Cambrian-P (arXiv
    2605.22819) gains from poses alone. Differs: form and normalisation are ours; rotations as six numbers are those
    of Zhou et al. 2019 (arXiv 1812.07035).

    Args:
        delta: Residual above which the loss grows linearly.

    Shape:
        predicted:          (N, 9), translation over the mean depth, first and second column of the rotation.
        target_from_source: (N, 4, 4), metres; motion from the source camera's frame to the target camera's frame.
        mean_depth:         (N,), metres, positive; mean measured depth of the pair's video.
        weight:             (N,); default: 1 for each pair.
        output:             scalar float32, without unit; unweighted. A zero that stays in the graph without pairs.

    Raises:
        ValueError: If shapes differ, a mean depth is not positive, or `delta` is not positive.

    Example:
        >>> predicted = torch.tensor([[0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
        >>> loss = RelativePoseLoss(delta=1.0)(predicted, torch.eye(4)[None], torch.ones(1))
        >>> round(loss.item(), 6)  # 0.5^2 / 2 in one of three numbers
        0.041667

    Related: `CrossViewDepthLoss` is given the pose that this loss asks for.
    """

    def __init__(self, delta: float = 0.1) -> None:
        super().__init__()
        if not delta > 0:
            raise ValueError(f"`delta` must be positive, got {delta}.")
        self.delta = delta

    def forward(
        self, predicted: Tensor, target_from_source: Tensor, mean_depth: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean over the pairs; shapes as in the class."""
        _check_shapes(predicted, target_from_source, mean_depth)
        if weight is None:
            weight = torch.ones_like(mean_depth)
        if weight.shape != mean_depth.shape:
            raise ValueError(f"`weight` must have shape {tuple(mean_depth.shape)}, got {tuple(weight.shape)}.")
        total = weight.float().sum()
        if not total > 0:
            return graph_zero(predicted)
        predicted, pose = predicted.float(), target_from_source.float()
        translation = pose[:, :3, 3] / mean_depth.float()[:, None]
        columns = pose[:, :3, :2].transpose(1, 2).flatten(1)
        distance = self._huber(predicted[:, :3], translation) + self._huber(predicted[:, 3:], columns)
        return (distance * weight.float()).sum() / total

    def _huber(self, predicted: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(predicted, target, reduction="none", delta=self.delta).mean(-1)

    @property
    def citation(self) -> str:
        """BibTeX of the works this loss comes from."""
        return f"{CITATION_GEOVR}\n{CITATION_SIX_NUMBERS}"


def _check_shapes(predicted: Tensor, target_from_source: Tensor, mean_depth: Tensor) -> None:
    count = len(predicted)
    if predicted.shape != (count, POSE_SIZE) or target_from_source.shape != (count, 4, 4):
        raise ValueError(
            f"`predicted` must have shape (N, {POSE_SIZE}) and `target_from_source` (N, 4, 4), got "
            f"{tuple(predicted.shape)} and {tuple(target_from_source.shape)}."
        )
    if mean_depth.shape != (count,) or not (mean_depth > 0).all():
        raise ValueError(
            f"`mean_depth` must be positive, in metres, of shape ({count},), got shape {tuple(mean_depth.shape)} with "
            f"{int((mean_depth <= 0).sum())} values that are not. Leave out pairs of videos without measured depth."
        )
