"""Options that several commands share, and what every command does before its work."""

import logging
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "GIBIBYTE",
    "REGION_FORMATS",
    "AsJson",
    "Data",
    "DepthFrom",
    "Device",
    "FieldOfView",
    "Frames",
    "MaxMemory",
    "Mode",
    "Model",
    "NumFrames",
    "Numbers",
    "OptionalRegionFile",
    "Protocol",
    "RegionFile",
    "Save",
    "SkipInvalidPoses",
    "Task",
    "Video",
    "speak",
]

GIBIBYTE = 1024**3

# A test holds these equal to what the packages know; the packages are imported only by the commands that run.
Task = Literal["multi3drefer", "revsi", "scan2cap", "scanqa", "scanrefer", "sqa3d", "vsibench"]
Protocol = Literal["clean", "paper"]
Frames = Literal["uniform", "listed", "coverage"]
Mode = Literal["proposals", "rgb_only"]
Numbers = Literal["digits", "bins", "tokens"]

Model = Annotated[
    str | None,
    typer.Option(
        help="Folder of an export, or a name on the Hub. Default: the shipped nano model, which knows only rendered "
        "rooms.",
    ),
]
Video = Annotated[
    str,
    typer.Argument(metavar="VIDEO", help="Video file, folder of images in natural order, or URL.", show_default=False),
]
NumFrames = Annotated[int | None, typer.Option(min=1, help="Frames to take. Default: as in training, at most.")]
Device = Annotated[str, typer.Option(help='Device, such as "cpu" or "cuda:1"; "auto" takes an accelerator, if any.')]
MaxMemory = Annotated[float, typer.Option(min=0.001, help="Gigabytes beside the weights.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Data = Annotated[Path, typer.Option(help="Folder of benchmarks in the public layout.", show_default=False)]
SkipInvalidPoses = Annotated[
    bool, typer.Option("--skip-invalid-poses", help="Leave out frames without a finite pose.")
]
RegionFile = Annotated[
    Path,
    typer.Option(help="File of regions: .json, .npy or .npz, see above.", show_default=False),
]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the answer: .html (a page with a 3D view), .png, .ply, .glb (need trimesh) or .rrd (needs rerun).",
    ),
]
DepthFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Draw the depth that the validator in this checkpoint of a training predicts, as points. Needs --save.",
    ),
]
FieldOfView = Annotated[
    float,
    typer.Option(
        min=15, max=150, help="Horizontal angle of the lens in degrees, for --depth-from and --boxes; a guess."
    ),
]
OptionalRegionFile = Annotated[
    Path | None,
    typer.Option(help="File of regions: .json, .npy or .npz, see above. Default: the model proposes them."),
]
REGION_FORMATS = """Files of regions. They describe all frames of the video, or those that are shown.


.json  boxes in pixels of the frame, left, top, right, bottom; the boxes of an object are a list
       with one entry a frame, null where it is not seen, or go by the number of the frame:
       {"frame_size": [480, 640],
        "boxes": {"chair": [[40, 120, 180, 330], null], "table": {"12": [300, 90, 420, 260]}}}
.npy   instance ids, integer (frames, height, width) with 0 for nothing,
       or masks, bool (objects, frames, height, width)
.npz   one such array, or one mask, bool (frames, height, width), under the name of each object
"""


def speak(is_quiet: bool = False) -> None:
    """Send messages to stderr: of our packages what they do, of others what goes wrong.

    Args:
        is_quiet: Whether progress and warnings of other packages stay away, for commands whose output is an answer.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("modeling_ide3d", "processing", "trainer"):
        logging.getLogger(name).setLevel(logging.WARNING if is_quiet else logging.INFO)
    if is_quiet:
        from transformers.utils import logging as transformers_logging

        warnings.simplefilter("ignore")
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
