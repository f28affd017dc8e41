"""Pseudo geometry that somebody made elsewhere and handed over as arrays, one file a scene."""

import zipfile
from pathlib import Path

import numpy as np

from processing.argument_rules import path_text
from processing.limits import check_file
from processing.scene_names import check_name
from trainer.field_rules import check_choice, check_text
from trainer.teachers.protocol import FrameSource
from trainer.teachers.pseudo_rules import ALIGNMENTS, Alignment
from trainer.teachers.stored_geometry import PseudoGeometry

__all__ = ["ArraySource"]

KEYS = ("depth", "frame_names", "depth_confidence", "intrinsics", "camera_to_world")
NEEDED = KEYS[:2]
MAX_VALUES = 2**31  # Of one array: 32 frames of 4000 x 3000 px are 4e8.


class ArraySource:
    """Pseudo geometry as arrays: `FOLDER/<scene_id>.npz`, as NumPy's `savez` writes it.

    This is how geometry of Depth Anything 3, VGGT and others comes in, from an installation of your own; see
    docs/teachers.md. Files hold `depth` (V, h, w) and `frame_names` (V,), and may hold `depth_confidence` (V, h, w),
    `intrinsics` (V, 3, 3) of the depth's pixels and `camera_to_world` (V, 4, 4), OpenCV axes. Nothing in them is run:
    arrays of objects are refused.

    Args:
        folder: Folder of the files.
        name: Name of what made them, such as "facebook/VGGT-1B".
        version: Version of weights and code.
        licence: Licence of the weights.
        alignment: Alignment that the geometry needs, see `ALIGNMENTS`; the same for all files.

    Raises:
        FileNotFoundError: If there is no such folder.
        TypeError: If an argument is of another type.
        ValueError: If a text is empty, or the alignment is unknown.
    """

    def __init__(self, folder: str | Path, *, name: str, version: str, licence: str, alignment: Alignment):
        self.folder = Path(path_text(folder, "folder"))
        if not self.folder.is_dir():
            raise FileNotFoundError(f"There is no folder of arrays {folder}.")
        for field, value in (("name", name), ("version", version), ("licence", licence)):
            check_text(f"`{field}`", value)
        check_choice("alignment", alignment, ALIGNMENTS)
        self.name, self.version, self.licence, self.alignment = name, version, licence, alignment
        self.preprocessing = "arrays of the user"

    def compute_geometry(self, frames: object, source: FrameSource) -> PseudoGeometry:
        """Read the geometry of the named frames; see `GeometrySource`.

        Raises:
            FileNotFoundError: If there is no file of the scene.
            ValueError: If it cannot be read, or lacks an array or a frame.
        """
        path = self.folder / f"{check_name(source.scene_id)}.npz"
        if not path.is_file():
            raise FileNotFoundError(f"There are no arrays of the scene {source.scene_id}: expected {path}.")
        arrays = _read_arrays(path)
        names = [str(name) for name in arrays["frame_names"].reshape(-1)]
        absent = [name for name in source.frame_names if name not in names]
        if absent:
            raise ValueError(f"{path} lacks the frames {absent[:4]} ({len(absent)} in all). Make them too.")
        places = [names.index(name) for name in source.frame_names]
        try:
            for key in KEYS[2:]:
                if key in arrays and len(arrays[key]) != len(names):
                    raise ValueError(f"`{key}` has {len(arrays[key])} entries for {len(names)} `frame_names`.")
            if arrays["depth"].ndim != 3 or len(arrays["depth"]) != len(names):
                raise ValueError(f"`depth` must have shape ({len(names)}, h, w), got {arrays['depth'].shape}.")
            chosen = {key: arrays[key][places] for key in KEYS if key in arrays and key != "frame_names"}
            return PseudoGeometry(chosen.pop("depth"), chosen.pop("depth_confidence", None), **chosen)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file, whose declared sizes are checked before.

    Raises:
        ValueError: If it is no such file, holds objects or too much, or lacks an array.
    """
    check_file(path)
    try:
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            sizes = {Path(entry.filename).stem: entry for entry in archive.infolist()}
            for key in KEYS:
                if key not in sizes:
                    continue
                if sizes[key].file_size > 8 * MAX_VALUES:
                    raise ValueError(f"`{key}` takes {sizes[key].file_size} bytes")
                with archive.open(sizes[key]) as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=10_000)
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise ValueError(f"{path} cannot be read as arrays of NumPy's `savez`: {error}. Write it again.") from error
    if missing := [key for key in NEEDED if key not in arrays]:
        raise ValueError(f"{path} lacks {missing}: expected the arrays {list(NEEDED)}, and any of {list(KEYS[2:])}.")
    if arrays["frame_names"].dtype.kind not in "US":
        raise ValueError(f"{path}: `frame_names` must be texts, got {arrays['frame_names'].dtype}.")
    return arrays
