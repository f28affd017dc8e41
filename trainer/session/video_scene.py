"""A model and a stored video, opened together by their names: ask, find, describe."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.video_utils import VideoMetadata

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from modeling_ide3d.loading_ide3d import check_dtype, read_json_object
from processing import IDE3DProcessor
from processing.argument_rules import check_number, path_text
from processing.proposals.protocol import RegionProposals
from processing.region_files import NamedRegions, read_regions
from processing.video_sources_ide3d import to_local_path
from trainer.session.finding import FoundObjects
from trainer.session.questions import check_model, check_processor
from trainer.session.said_boxes import SaidBoxes
from trainer.session.scene_session import DEFAULT_MAX_MEMORY, GROUND, SceneSession

__all__ = ["FoundRegion", "VideoScene", "load_inference_model", "open_video", "show_video"]


@dataclass(frozen=True)
class FoundRegion:
    """The region that fits a description best.

    Args:
        description: Words that were looked for.
        name: Name of the region; None if "no such object" fits better than all of them.
        score: Cosine of the winner, in [-1, 1].
        frames: Indices, in the video, of the frames shown in which the region is seen; empty without a region.
        scores: Cosine of each region, by name.
        no_object: Cosine of "no such object".
        others: Names of further regions that fit, best first; none among regions that were given.
        source: Name of what proposed the regions; empty for regions that were given.
        licence: Licence of the weights that proposed them.

    Among proposed regions the scores count how much each is like an object too, and `no_object` has a margin; see
    `SceneSession.find`.
    """

    description: str
    name: str | None
    score: float
    frames: tuple[int, ...]
    scores: dict[str, float]
    no_object: float
    others: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class VideoScene:
    """A stored video that answers questions, finds objects and describes regions.

    Args:
        session: Session of the frames shown.
        frame_indices: Indices of these V frames in the video.
        total_frames: Frames of the video.
        frames: Frames shown, as read, uint8 (V, h, w, 3); None if they were not kept.
    """

    session: SceneSession
    frame_indices: tuple[int, ...]
    total_frames: int
    frames: np.ndarray | None = field(default=None, repr=False, compare=False)

    def read_regions(self, path: str | Path) -> NamedRegions:
        """Read regions of this video from a file; see `processing.region_files.read_regions`."""
        return read_regions(path, self.session.token_grid, self.frame_indices, self.total_frames)

    def check_regions(self, regions: NamedRegions) -> None:
        """Raise unless these can be regions of this video.

        Raises:
            TypeError: If they are no `NamedRegions`.
            ValueError: If they are proposals of another video.
        """
        if not isinstance(regions, NamedRegions):
            raise TypeError(
                f"`regions` must be NamedRegions, as `read_regions` gives them, got {type(regions).__name__}."
            )
        if isinstance(regions, RegionProposals):
            regions.check_video(self.session.video.fingerprint)

    def ask(self, questions: Sequence[str], max_new_tokens: int = 256) -> list[str]:
        """Answer questions in words."""
        return self.session.ask(questions, max_new_tokens=max_new_tokens)

    def find(
        self, descriptions: Sequence[str], regions: NamedRegions | None = None, template: str = GROUND
    ) -> list[FoundRegion]:
        """Choose for each description the region that fits it best, or none.

        Args:
            descriptions: Objects in words, such as "the red chair".
            regions: Candidates, as `read_regions` gives them; default: those that the session proposes.
            template: Request with `{description}` in it; default: that of ScanRefer.

        Raises:
            TypeError: If `regions` are no `NamedRegions`.
            ValueError: If there is no region. See `SceneSession.ground` for the rest.
        """
        if regions is None or isinstance(regions, RegionProposals):
            found = self.session.find_each(descriptions, regions, template=template)
            proposals = self.session.propose() if regions is None else regions
            return [self._name_found(entry, proposals) for entry in found]
        self.check_regions(regions)
        if not len(regions):
            raise ValueError("`regions` must hold at least one region to find something among, got none.")
        found = []
        scores_of_all = self.session.ground(descriptions, regions.masks, template=template).tolist()
        for description, cosines in zip(descriptions, scores_of_all, strict=True):
            *scores, no_object = cosines
            best = max(range(len(scores)), key=scores.__getitem__)
            is_there = scores[best] >= no_object
            seen = regions.masks[best].flatten(1).any(1).tolist() if is_there else []
            found.append(
                FoundRegion(
                    description=description,
                    name=regions.names[best] if is_there else None,
                    score=max(scores[best], no_object),
                    frames=tuple(index for index, is_seen in zip(self.frame_indices, seen, strict=False) if is_seen),
                    scores=dict(zip(regions.names, scores, strict=True)),
                    no_object=no_object,
                )
            )
        return found

    def boxes(self, descriptions: Sequence[str], **options: Any) -> list[SaidBoxes]:
        """Ask in words where in 3D objects are; see `SceneSession.boxes`.

        The frame of a box is the number of a frame shown; `frame_indices` has its index in the video.
        """
        return self.session.boxes(descriptions, **options)

    def _name_found(self, found: FoundObjects, proposals: RegionProposals) -> FoundRegion:
        """Return what was found among proposals, its frames counted in the video."""
        seen = found.masks[0].flatten(1).any(1).tolist() if found.names else []
        return FoundRegion(
            description=found.description,
            name=found.names[0] if found.names else None,
            score=found.scores[0] if found.names else found.no_object,
            frames=tuple(index for index, is_seen in zip(self.frame_indices, seen, strict=False) if is_seen),
            scores=dict(zip(proposals.names, found.totals, strict=True)),
            no_object=found.no_object,
            others=found.names[1:],
            source=found.source,
            licence=found.licence,
        )

    def describe(self, regions: NamedRegions, max_new_tokens: int = 128) -> dict[str, str]:
        """Describe each region in words, by its name.

        Raises:
            TypeError: If `regions` are no `NamedRegions`.
            ValueError: If they are proposals of another video.
        """
        self.check_regions(regions)
        texts = self.session.describe(regions.masks, max_new_tokens=max_new_tokens)
        return dict(zip(regions.names, texts, strict=True))


def load_inference_model(
    model: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[IDE3DForConditionalGeneration, IDE3DProcessor]:
    """Load a model for questions, with its processor; no code from its folder is run.

    Args:
        model: Folder of an export, a checkpoint or a PEFT adapter, or a name on the Hub.
        device: "auto" for the accelerator if there is one, else such as "cpu" or "cuda:1".
        dtype: Type of the weights; "auto" is that of the files.

    Raises:
        TypeError: An argument is of another type.
        ValueError: The folder holds no model, or one of another kind, or weights are missing; there is no such name
            on the Hub, no such device, or no such type.
        OSError: A file of the folder is damaged.
    """
    check_dtype(dtype)
    place = _find_device(device)
    name = path_text(model, "model")
    _check_kind(name)
    processor = IDE3DProcessor.from_pretrained(name)
    loaded = IDE3DForConditionalGeneration.from_pretrained(name, dtype=dtype)
    return loaded.to(place).eval(), processor


def open_video(
    model: str | Path,
    video: str | Path,
    *,
    num_frames: int | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> VideoScene:
    """Load a model and show it a stored video.

    Args:
        model: See `load_inference_model`.
        video: Video file, folder of images in natural order, or URL of a video.
        num_frames: Frames to take, spread evenly; default: at most as many as the model was trained with.
        device: See `load_inference_model`.
        dtype: See `load_inference_model`.
        max_memory: Bytes beside the weights; see `SceneSession`.

    Raises:
        FileNotFoundError: There is no such video.
        TypeError: An argument is of another type.
        ValueError: The video cannot be read or has fewer frames, or the model is none of ours.
    """
    video = path_text(video, "video")
    path = to_local_path(video)
    if path is not None and not Path(path).exists():
        raise FileNotFoundError(f"There is no video file or folder of images at {video}.")
    loaded, processor = load_inference_model(model, device=device, dtype=dtype)
    return show_video(loaded, processor, video, num_frames=num_frames, max_memory=max_memory)


def show_video(
    model: IDE3DForConditionalGeneration,
    processor: IDE3DProcessor,
    video: str | Path,
    *,
    num_frames: int | None = None,
    max_seconds: float | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> VideoScene:
    """Show a stored video to a loaded model.

    Args:
        model: Model, as `load_inference_model` gives it.
        processor: Its processor.
        video: See `open_video`.
        num_frames: See `open_video`.
        max_seconds: Longest video that is taken; default: any. Where the length is unknown, none is checked.
        max_memory: See `open_video`.

    Raises:
        FileNotFoundError: There is no such video.
        TypeError: An argument is of another type.
        ValueError: The video cannot be read, has fewer frames, or is longer than `max_seconds`.
    """
    check_model(model)
    check_processor(processor)
    if max_seconds is not None:
        max_seconds = check_number(max_seconds, "max_seconds", above=0)
    reader = processor.video_processor

    def sample(metadata: VideoMetadata) -> np.ndarray:
        if max_seconds is not None and (metadata.duration or 0) > max_seconds:
            raise ValueError(
                f"The video has {metadata.duration:.0f} s, more than the {max_seconds:g} s that are taken. Cut it."
            )
        return reader.sample_frames(metadata, num_frames=num_frames)

    frames, metadata = reader.fetch_videos(path_text(video, "video"), sample)
    session = SceneSession(model, processor, frames, max_memory=max_memory, do_sample_frames=False)
    return VideoScene(session, tuple(metadata.frames_indices), metadata.total_num_frames, frames)


def _find_device(device: Any) -> torch.device:
    """Return a device that is there.

    Raises:
        TypeError: `device` is neither a text nor a device.
        ValueError: There is no such device.
    """
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f'`device` must be a text such as "cpu" or "cuda:1", or "auto", got {device!r}.')
    if device == "auto":
        has_one = torch.accelerator.is_available()
        return torch.device(torch.accelerator.current_accelerator() if has_one else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f'`device` must be "auto" or a device that is there, got {str(device)!r}: {reason}.'
        ) from error
    if place.type == "meta":
        raise ValueError("`device` must be a device that computes, got 'meta'.")
    return place


def _check_kind(name: str) -> None:
    """Raise ValueError unless `name` leads to a 3D-IDE model or to adapters."""
    folder = Path(name)
    if (folder / "adapter_config.json").is_file():
        return
    if folder.exists() and not (folder / "config.json").is_file():
        raise ValueError(f"{name} has no config.json. MODEL is the folder of an export, or a name on the Hub.")
    if folder.exists():
        read_json_object(folder / "config.json")
    try:
        config, _ = PreTrainedConfig.get_config_dict(name)
    except OSError as error:
        raise ValueError(f"There is no model {name}, neither a folder here nor a name on the Hub. {error}") from error
    if config.get("model_type") != IDE3DConfig.model_type:
        raise ValueError(f"{name} is a model of type {config.get('model_type')!r}, not 'ide3d': this needs an export.")
