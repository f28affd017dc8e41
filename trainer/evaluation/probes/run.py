"""Probe a model by its name, on rooms or on scenes of a folder, and write what was found."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from processing.benchmarks import load_scene
from processing.posed_video import PosedVideo
from processing.rooms import load_rooms
from processing.writing import write_json
from trainer.evaluation.probes.tables import format_table, run_probes
from trainer.evaluation.probes.token_sources import TokenSource, check_layers, open_token_source
from trainer.evaluation.probes.tokens import TOKENS_PER_SCENE
from trainer.processes import refuse_several

__all__ = ["ProbeSettings", "describe_probes", "probe_model"]

logger = logging.getLogger(__name__)

MAX_ROOM_SIZE = 126  # pixels; larger frames of rooms take long to render
WIDE_GAP = 0.1  # nats between the estimate of information and its bound


@dataclass(frozen=True)
class ProbeSettings:
    """Model, scenes and layers of a run of the probes.

    Args:
        model: Folder or Hub name of a model of ours or of a vision tower.
        data: Folder in the public layout; None for rooms.
        scenes: Scenes of the folder, such as "scannet/scene0000_00"; None for all.
        skip_invalid_poses: Whether to leave out frames without a finite pose.
        num_rooms: Number of rendered rooms, where no folder is given.
        split: Split of the rooms, "train", "validation" or "test".
        rooms_seed: Seed of the rooms.
        room_size: Side of a room's frames in pixels; None for that of the input, at most 126.
        num_frames: Number of frames of a scene at most.
        layers: Layers such as "vision.6"; None for a few, evenly spread.
        read_by_losses: Layers that geometry losses of the training read; None where that is not known.
        random_weights: Whether to initialise the weights at random.
        image_size: Side of a vision tower's input in pixels; None for its own.
        tokens_per_scene: Number of tokens of a scene that are kept at most.
        dtype: Type of the weights, such as "bfloat16"; "auto" is that of the files.
        seed: Seed of all that is sampled.
        output: File of the results, JSON.

    Raises:
        ValueError: If scenes are named, or frames are to be left out, without a folder.
    """

    model: str
    data: str | None = None
    scenes: tuple[str, ...] | None = None
    skip_invalid_poses: bool = False
    num_rooms: int = 200
    split: str = "test"
    rooms_seed: int = 0
    room_size: int | None = None
    num_frames: int = 4
    layers: tuple[str, ...] | None = None
    read_by_losses: tuple[str, ...] | None = None
    random_weights: bool = False
    image_size: int | None = None
    tokens_per_scene: int = TOKENS_PER_SCENE
    dtype: str = "auto"
    seed: int = 0
    output: str = "outputs/probes.json"

    def __post_init__(self):
        if self.data is None and (self.scenes or self.skip_invalid_poses):
            raise ValueError("--scenes and --skip-invalid-poses belong to a folder: give it as --data.")


def probe_model(settings: ProbeSettings) -> dict[str, Any]:
    """Run the probes and write their results.

    Returns:
        `settings`, `held_out_layers` (those that no loss reads; None where that is not known) and `layers` (see
        `run_probes`), as JSON holds them.

    Raises:
        FileNotFoundError: If the folder has no scene.
        ValueError: If a layer does not exist, there are too few scenes, or a launcher started several processes.
    """
    refuse_several("A probe")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    source = open_token_source(
        settings.model,
        random_weights=settings.random_weights,
        seed=settings.seed,
        image_size=settings.image_size,
        read_by_losses=settings.read_by_losses,
        dtype=settings.dtype,
        device=device,
    )
    check_layers(source, settings.layers or ())  # before rooms are rendered
    scenes = _open_scenes(settings, source)
    layers = run_probes(
        source, scenes, settings.layers, tokens_per_scene=settings.tokens_per_scene, seed=settings.seed
    )
    is_known = source.read_by_losses is not None
    held_out = [layer for layer in layers if layer not in source.read_by_losses] if is_known else None
    result = {"settings": asdict(settings), "held_out_layers": held_out, "layers": layers}
    write_json(settings.output, result)
    found = [entry["information"] for entry in layers.values()]
    gap = max(entry["information"]["value"] - entry["information_bound"]["value"] for entry in found)
    if gap > WIDE_GAP:
        logger.warning("Nats may be too high by %.2f, the distance from their bound. Take more scenes.", gap)
    return json.loads(json.dumps(result))  # as the file has it


def describe_probes(result: dict[str, Any]) -> str:
    """Return what `probe_model` found as text: the tables, and how to read them."""
    first = next(iter(result["layers"].values()))
    unknown = "" if result["held_out_layers"] is not None else " (not known here: --read-by-losses)"
    return (
        f"{format_table(result['layers'])}\n"
        f"95 % intervals over {first['scenes']['test']} held-out scenes of {sum(first['scenes'].values())}. place: "
        "what the position in the picture alone gives. *: read by a geometry loss in training"
        f"{unknown}. Wrote {result['settings']['output']}."
    )


def _open_scenes(settings: ProbeSettings, source: TokenSource) -> Iterable[PosedVideo]:
    """Open rooms, or scenes of a folder, one at a time."""
    if settings.data is None:
        input_size = source.grid(source.layers[0]).image_size[0]
        size = settings.room_size or min(input_size, MAX_ROOM_SIZE)
        shape = {"seed": settings.rooms_seed, "image_size": size, "num_frames": settings.num_frames}
        return map(PosedVideo.from_room, load_rooms(settings.split, settings.num_rooms, **shape))
    folder = Path(settings.data, "scannet", "posed_images")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    scenes = settings.scenes or [f"scannet/{name}" for name in names]
    if not scenes:
        raise FileNotFoundError(f"There is no scene in {folder}.")
    options = {"num_frames": settings.num_frames, "skip_invalid_poses": settings.skip_invalid_poses}
    return (load_scene(settings.data, scene, parts=("frames", "poses", "depth"), **options) for scene in scenes)
