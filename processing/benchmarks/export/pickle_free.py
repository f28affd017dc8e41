"""Write pickle-free copies of the pickled files of a benchmark folder, once; the readers then prefer them.

    python -m processing.benchmarks.export.pickle_free data

EmbodiedScan's pickles become JSON with the four fields that are used. Point clouds become safetensors. The originals
stay where they are, and no file runs code while it is read.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tqdm import tqdm

from processing.benchmarks.readers.files import read_infos, read_point_cloud
from processing.benchmarks.readers.tasks import Layout
from processing.scene_folders import is_there
from processing.scene_names import path_inside
from processing.writing import write_bytes, write_json

__all__ = ["export_pickle_free"]

logger = logging.getLogger("processing.benchmarks.export.pickle_free")


def export_pickle_free(data_dir: str | Path) -> list[Path]:
    """Write `embodiedscan_infos_<split>.json` and `<scene>.safetensors` beside every pickle that is there.

    Returns:
        The files written. A file that is no longer there is not missed: run it again after you replace a pickle.

    Raises:
        FileNotFoundError: the folder holds neither kind of file.
        ValueError: a pickle that holds anything but arrays and builtins, or a symlink in the place of a copy.
    """
    layout = Layout(data_dir)
    written = []
    for split in ("train", "val", "test"):
        target, source = layout.infos(split)
        if is_there(source):
            items = [
                {
                    "sample_idx": scene_id,
                    "images": [{"img_path": name} for name in info["images"]],
                    "axis_align_matrix": info["axis_align_matrix"].tolist(),
                    "depth_cam2img": info["depth_cam2img"].tolist(),
                }
                for scene_id, info in read_infos(source).items()
            ]
            write_json(path_inside(target.parent, target.name, "file"), {"data_list": items}, indent=None)
            written.append(target)
    clouds = sorted(layout.root.glob("*/pcd_with_object_aabbs/*/*.pth"))
    for source in tqdm(clouds, desc="point clouds", disable=not clouds):
        target = source.with_suffix(".safetensors")
        arrays = {name: np.ascontiguousarray(array) for name, array in read_point_cloud(source).items()}
        write_bytes(path_inside(target.parent, target.name, "file"), save(arrays))
        written.append(target)
    if not written:
        raise FileNotFoundError(f"{data_dir} holds neither {layout.infos('val')[1].name} nor point clouds (.pth)")
    return written


def main(arguments: list[str] | None = None) -> None:
    """Command line of `export_pickle_free`."""
    parser = argparse.ArgumentParser(prog="python -m processing.benchmarks.export.pickle_free", description=__doc__)
    parser.add_argument("data", help="folder in the public layout")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("Wrote %d files.", len(export_pickle_free(options.data)))


if __name__ == "__main__":
    main()
