"""The original's stored features, `vggt_sliced.npy`, as a teacher."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from processing.argument_rules import path_text
from processing.benchmarks.readers.teacher import load_teacher_features, open_teacher
from processing.token_grid import TokenGrid
from trainer.field_rules import check_text
from trainer.geometry.checks import Protocol, check_protocol
from trainer.teachers.protocol import FrameSource

__all__ = ["OriginalStoreTeacher"]

STORES = "*/posed_images_3d_feature_vggt/*/vggt_sliced.npy"


class OriginalStoreTeacher:
    """Features that the original extracted: last aggregator layer of VGGT, all patches.

    They are of whole frames, in float32. The files name neither frames nor weights. The frames are those that the
    original's rule takes of the pictures in the folder, and the weights are taken to be facebook/VGGT-1B.
    `python -m trainer.teachers` makes smaller files of them that say what they hold.

    Args:
        data_dir: Folder in the public layout.
        licence: Licence of the weights behind the files.
        protocol: Rule that pools patches, see `pool_teacher_features`.

    Raises:
        FileNotFoundError: If the folder holds no `vggt_sliced.npy`.
        ValueError: If a file is not what its name says.
    """

    name = "facebook/VGGT-1B"
    version = "vggt_sliced.npy, last aggregator layer"
    preprocessing = "as stored by the original: whole frames, longer side 518 px"

    def __init__(self, data_dir: str | Path, *, licence: str = "cc-by-nc-4.0", protocol: Protocol = "clean"):
        check_protocol(protocol)
        check_text("`licence`", licence)
        self.data_dir, self.licence, self.protocol = Path(path_text(data_dir, "data_dir")), licence, protocol
        first = next(iter(sorted(self.data_dir.glob(STORES))), None)
        if first is None:
            raise FileNotFoundError(f"{data_dir} holds no file {STORES}; give a folder in the public layout.")
        self.feature_size = open_teacher(first).shape[-1]

    def compute_features(
        self,
        frames: Any,
        geometry: dict[str, Tensor] | None,
        grid: TokenGrid,
        source: FrameSource | None = None,
    ) -> Tensor:
        """Read the features of `source`, averaged over the tokens; see `Teacher`.

        Raises:
            FileNotFoundError: If there is no file of this scene.
            ValueError: If there is no source, or the file does not hold its frames.
        """
        if source is None:
            raise ValueError(
                "`vggt_sliced.npy` is read by scene and frame: the sample needs `scene_id` and `frame_names`."
            )
        names = source.frame_names
        return torch.from_numpy(load_teacher_features(self.data_dir, source.scene_id, names, grid, self.protocol))
