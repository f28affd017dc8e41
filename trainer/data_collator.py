"""From samples (chats, frames, privileged geometry) to one padded batch."""

import functools
import json
import logging
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor

from processing import IDE3DProcessor
from processing.image_reading_ide3d import frames_to_tensor
from processing.pixel_rules_ide3d import check_scale
from processing.scene_names import check_name
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import check_teacher_features, pad_geometry, pad_teacher_features, prepare_geometry
from trainer.data.pseudo_inputs import check_store, read_pseudo
from trainer.data.region_inputs import pad_regions, prepare_regions
from trainer.data.sample_chats import check_answers, list_chats
from trainer.data.sample_keys import check_keys, find_foreign_keys, list_keys
from trainer.geometry.checks import Protocol, check_protocol
from trainer.teachers import FrameSource, Teacher, TeacherStore
from trainer.teachers.pseudo_rules import ConfidenceRule

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100
_ERRORS = (TypeError, FileNotFoundError, ConnectionError, ValueError)


class IDE3DDataCollator:
    """Collator of samples of any task, with or without geometry, for the training model.

    A sample is a dict; all keys but `messages` are optional. Further keys are not used: those that our data sets do
    not have are named once in a warning. A key that looks misspelt is refused: a name close to one of `optional_keys`
    that the sample lacks, such as `Depth`. `scan_id`, `extrinsics` and longer names such as `depth_path` are names of
    their own.

    - `messages`: a chat (list of messages with `role` and `content`), or a list of chats about the same video. The
      chats of a list are *packed*: they share one visual prefix, and none sees another. A chat without an
      answer, which trains other terms alone, is named once in a warning.
    - `scene_id`: name of the sample in messages about it; the batch then has `sample_names`.
    - `frame_names`: (V,) str, names of the frames, by which a `TeacherStore` finds their features.
    - `frames`: (V, h, w, 3) uint8, or a list of PIL images; for the one `{"type": "video"}` part of the chat.
    - `images`: PIL images, for the `{"type": "image"}` parts.
    - `depth` (V, hd, wd) metres, `intrinsics` (V, 3, 3) of the frames' pixels, `camera_to_world` (V, 4, 4) metres;
      depth without poses trains the depth term alone.
    - `geometry_kind`: "pseudo" for geometry that a network or a reconstruction made, "measured" by default. Pseudo
      depth may have a `depth_confidence` (V, hd, wd), 0 = not to be used.
    - `depth_alignment`: what is unknown about pseudo depth. "metric": nothing. "scale": one factor of the video and
      its poses; the default with poses. "affine": scale and shift of each frame; the default without poses. "inverse":
      the same of inverse depth, which is then given as `depth`.
    - `teacher_features`: (V, rows, cols, C).
    - `region_masks`: (N, V, rows, cols) bool; `region_references`: (R,) region of the k-th `<ground>` of the prompts,
      by default the k-th; `region_targets`: (N + 1,) bool, makes the last `<ground>` a grounding query, or
      (Q, N + 1) for packed chats: a row for each `<ground>` that refers to no region, in order.

    A batch has the keys of the tensor table: `input_ids`, `attention_mask`, `labels`, `pixel_values_videos`,
    `video_frame_mask` (where frame counts differ), `depth`, `intrinsics`, `camera_to_world`, `has_geometry`,
    `has_poses` (where some samples have depth alone), `depth_alignment` (where some geometry is pseudo),
    `teacher_features`, `region_masks`, `region_valid`, `region_references`, `region_targets`; and `segment_ids` (B, L)
    where chats are packed: 0 in the shared prefix, k in the k-th chat, -1 in the padding. Labels are set on what the
    assistant says, the end of its turn included.

    Args:
        processor: Gives tokenizer, chat template, video processor and token grid.
        teacher: Computes `teacher_features`, or looks them up, for samples that bring none.
        label_grounding: Whether the answer of a grounding sample is a target of the language loss too. None: clean
            yes, paper no: there the contrast between regions replaces it, and the model never learns to write
            `<ground>`.
        protocol: "clean" lays depth on the pixels of the vision input, by pixel centres. "paper" squashes the whole
            frame onto the pixels that the vision tower sees, by corners. It adds `native_depth` and
            `native_intrinsics`, which the original takes for the masks of its frame pairs. None: that of the
            training arguments, given by `IDE3DTrainer`; "clean" without a trainer.
        confidence_rule: Rule of the pixels of pseudo depth that count; None: all but the least sure tenth of each
            frame.
        pseudo_geometry: Store of pseudo geometry, for samples that bring no depth but name a scene of the store by
            `scene_id` and `frame_names`. Of other scenes such samples train without geometry, which is said once.

    Attributes:
        optional_keys: Keys that nothing else asks for: without a check, a misspelt one would vanish in silence.
        max_length: Number of positions of the model, given by `IDE3DTrainer`; longer samples are named once in a
            warning. None: that of the tokenizer.

    Raises:
        ValueError: If a key is misspelt, placeholders and frames do not match, frame counts differ, or masks have
            another grid. Also if packed chats do not begin alike, an answer has no words, or pixels, geometry or
            teacher features are broken. It names the sample.
        TypeError: If a sample is no dict, or a key holds another type. It names the sample.
    """

    optional_keys: tuple[str, ...] = (
        "scene_id",
        "frame_names",
        "depth",
        "intrinsics",
        "camera_to_world",
        "geometry_kind",
        "depth_alignment",
        "depth_confidence",
        "teacher_features",
        "region_masks",
        "region_references",
        "region_targets",
    )

    def __init__(
        self,
        processor: IDE3DProcessor,
        teacher: Teacher | None = None,
        label_grounding: bool | None = None,
        protocol: Protocol | None = None,
        confidence_rule: ConfidenceRule | None = None,
        pseudo_geometry: TeacherStore | None = None,
    ):
        if label_grounding is not None and not isinstance(label_grounding, bool):
            raise TypeError(f"label_grounding must be True, False or None, got {label_grounding!r}.")
        if teacher is not None and not hasattr(teacher, "compute_features"):
            raise TypeError(f"teacher must be a teacher of `trainer.teachers`, got {teacher!r}.")
        self.processor = processor
        self.teacher = teacher
        self.label_grounding = label_grounding
        if protocol is not None:
            check_protocol(protocol)
        if confidence_rule is not None and not isinstance(confidence_rule, ConfidenceRule):
            raise TypeError(f"confidence_rule must be a ConfidenceRule or None, got {confidence_rule!r:.100}.")
        if pseudo_geometry is not None:
            check_store(pseudo_geometry)
        self.protocol, self.confidence_rule, self.pseudo_geometry = protocol, confidence_rule, pseudo_geometry
        self.grid = TokenGrid.of(processor)
        self.max_length: int | None = None
        self._told: set[Any] = set()
        self._remember_chats()

    def _remember_chats(self) -> None:
        # A room's chats come again every epoch.
        self._tokenize = functools.lru_cache(maxsize=100_000)(self._tokenize_chat)

    def __getstate__(self) -> dict[str, Any]:
        # The memory cannot be sent to a worker process; each builds its own.
        return {key: value for key, value in self.__dict__.items() if key != "_tokenize"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remember_chats()

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate."""
        if isinstance(samples, Mapping) or not samples:
            given = "a single sample" if samples else "none"
            raise ValueError(f"Expected a list of at least one sample, got {given}.")
        prepared = [self._prepare_named(sample, index) for index, sample in enumerate(samples)]
        batch = self._pad_texts([sample["text"] for sample in prepared])
        if any("scene_id" in sample for sample in samples):
            batch["sample_names"] = encode_names([str(self._name(s, index)) for index, s in enumerate(samples)])
        videos = [sample["frames"] for sample in prepared if sample["frames"] is not None]
        if videos:
            options = {"do_sample_frames": False, "input_data_format": "channels_first", "return_tensors": "pt"}
            batch.update(self.processor.video_processor(videos, **options))
            if batch["video_frame_mask"].all():
                del batch["video_frame_mask"]  # a full mask costs a copy of the frames, and a compiled graph its whole
        images = [sample["images"] for sample in prepared if sample["images"] is not None]
        if images:
            batch["pixel_values"] = torch.cat(images)
        num_frames = max((len(video) for video in videos), default=0)
        batch.update(pad_geometry([sample["geometry"] for sample in prepared], num_frames, self.grid))
        batch.update(pad_teacher_features([sample["teacher_features"] for sample in prepared], num_frames))
        if any(sample["has_regions"] for sample in prepared):
            batch.update(pad_regions(prepared, self.grid))
        return batch

    def _prepare_named(self, sample: Any, index: int) -> dict[str, Any]:
        """Check and prepare a sample; errors name it."""
        if not isinstance(sample, Mapping):
            raise TypeError(f"Sample {index} must be a dict with `messages`, got {type(sample).__name__}.")
        name = self._name(sample, index)
        try:
            return self._prepare(sample, name)
        except _ERRORS as error:
            kind = next(kind for kind in _ERRORS if isinstance(error, kind))
            raise kind(f"Sample {name!r}: {error}") from error

    def _prepare(self, sample: Mapping[str, Any], name: str | int) -> dict[str, Any]:
        """Check a sample and lay it on the vision input, all but its video."""
        keys = list_keys(sample)
        check_keys(keys, self.optional_keys)
        if foreign := find_foreign_keys(keys, self.optional_keys):
            self._tell(foreign, "Sample %r: the keys %s are not used.", name, list(foreign))
        chats = list_chats(sample)
        frames, images = self._read_frames(sample), _list_images(sample)
        text = self._text(sample, chats, None if frames is None else len(frames), len(images))
        check_answers(sample, functools.partial(self._tell, "answer"), name)
        self._check_length(text, name)
        size = None if frames is None else tuple(frames.shape[-2:])
        sample = self._add_pseudo(sample, size)
        geometry = prepare_geometry(sample, self.grid, self.protocol or "clean", size, self.confidence_rule)
        num_frames = (0 if frames is None else len(frames)) + len(images)
        num_ground_tokens = text["input_ids"].count(self.processor.ground_token_id)
        return {
            "text": text,
            "frames": frames,
            "images": self.processor(images=list(images), return_tensors="pt")["pixel_values"] if images else None,
            "geometry": geometry,
            "teacher_features": self._teacher_features(sample, geometry),
            **prepare_regions(sample, self.grid, num_frames, num_ground_tokens),
        }

    def _add_pseudo(self, sample: Mapping[str, Any], frame_size: tuple[int, int] | None) -> Mapping[str, Any]:
        """Return a sample without depth with the geometry that the store has of it."""
        source = FrameSource.of_sample(sample)
        if self.pseudo_geometry is None or frame_size is None or source is None or sample.get("depth") is not None:
            return sample
        if not self.pseudo_geometry.has_scene(source.scene_id):
            told = "%s holds no geometry of the scene %s, so it trains without."
            self._tell("pseudo", told, self.pseudo_geometry.folder, source.scene_id)
            return sample
        return {**sample, **read_pseudo(self.pseudo_geometry, source, frame_size)}

    def _tell(self, kind: Any, message: str, *values: Any) -> None:
        """Warn once of each kind."""
        if kind not in self._told:
            self._told.add(kind)
            logger.warning(message + " This is said once.", *values)

    def _check_length(self, text: Mapping[str, list[int]], name: str | int) -> None:
        limit = self.max_length or self.processor.tokenizer.model_max_length
        segments = text["segment_ids"]
        longest = segments.count(0) + max((segments.count(k) for k in set(segments) - {0}), default=0)
        if longest > limit:
            message = "Sample %r has %d tokens, more than the %d positions that model and tokenizer are made for."
            self._tell("length", message, name, longest, limit)

    @staticmethod
    def _name(sample: Mapping[str, Any], index: int) -> str | int:
        return sample.get("scene_id", index)

    def _tokenize_chat(self, chat: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        try:
            encoded = self.processor.tokenizer.apply_chat_template(
                json.loads(chat),
                chat_template=self.processor.chat_template,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
        except TemplateError as error:
            raise ValueError(f"The chat template refuses the messages: {error}") from error
        return tuple(encoded["input_ids"]), tuple(encoded["assistant_masks"])

    def _text(
        self, sample: Mapping[str, Any], chats: list[Any], num_frames: int | None, num_images: int
    ) -> dict[str, list[int]]:
        """Token ids, labels and segments of a sample, visual placeholders expanded."""
        encoded = [self._tokenize(_to_json(chat)) for chat in chats]
        self._check_placeholders(encoded[0][0], num_frames is not None, num_images)
        is_labelled = self.protocol != "paper" if self.label_grounding is None else self.label_grounding
        is_query_labelled = is_labelled or sample.get("region_targets") is None
        prefix = self._prefix_length([ids for ids, _ in encoded]) if len(chats) > 1 else 0
        ids, labels, segments = [], [], []
        for index, (tokens, spoken) in enumerate(encoded):
            start = prefix if index else 0
            ids += tokens[start:]
            labels += [
                token if is_spoken and is_query_labelled else IGNORED_LABEL
                for token, is_spoken in zip(tokens[start:], spoken[start:], strict=True)
            ]
            own = len(tokens) - prefix
            segments += ([0] * prefix if index == 0 else []) + [index + 1 if len(chats) > 1 else 0] * own
        return self._expand(ids, labels, segments, num_frames or 0)

    def _check_placeholders(self, ids: Sequence[int], has_video: bool, num_images: int) -> None:
        num_videos = ids.count(self.processor.video_token_id)
        if num_videos != has_video:
            raise ValueError(
                f"messages have {num_videos} video parts and the sample {int(has_video)} videos: give "
                '`frames` for the one {"type": "video"} part.'
            )
        if (asked := ids.count(self.processor.image_token_id)) != num_images:
            raise ValueError(
                f"messages have {asked} image parts and the sample {num_images} images: give one of `images` for each "
                '{"type": "image"} part.'
            )

    def _read_frames(self, sample: Mapping[str, Any]) -> Tensor | None:
        """Frames (V, channels, h, w) of a sample, checked."""
        frames = sample.get("frames")
        if frames is None:
            return None
        is_path = isinstance(frames, (str, Path))
        if not is_path and not isinstance(frames, (list, tuple, np.ndarray, Tensor)):
            raise TypeError(f"frames must be an array (V, h, w, 3) or PIL images, got {type(frames).__name__}.")
        if not is_path and len(frames) == 0:
            raise ValueError("frames is empty; a video needs at least one frame.")
        if is_path or isinstance(frames[0], (str, Path)):
            raise ValueError("frames must be an array (V, h, w, 3) or PIL images, got file names. Read them before.")
        tensor = frames_to_tensor(frames, "frames")
        check_scale(tensor, "frames", self.processor.video_processor, {})
        names = sample.get("frame_names")
        if names is not None:
            texts = [] if isinstance(names, (str, bytes)) else [name for name in names if isinstance(name, str)]
            if not len(texts) == len(names) == len(tensor):
                raise ValueError(
                    f"frame_names must be the names of {len(tensor)} frames, str, got {reprlib.repr(names)}."
                )
            for frame_name in names:
                check_name(frame_name, "frame name", "frame_names")
        return tensor

    def _prefix_length(self, chats: list[tuple[int, ...]]) -> int:
        """Tokens up to the last visual placeholder, which packed chats must have in common."""
        visual = {self.processor.video_token_id, self.processor.image_token_id}
        places = [place for place, token in enumerate(chats[0]) if token in visual]
        if not places:
            raise ValueError("Packed chats share a video or image, got chats without any.")
        length = places[-1] + 1
        for index, chat in enumerate(chats):
            if chat[:length] != chats[0][:length] or visual & set(chat[length:]):
                raise ValueError(f"Packed chats must begin alike up to their video; chat {index} differs from chat 0.")
        return length

    def _expand(self, ids: list[int], labels: list[int], segments: list[int], frames: int) -> dict[str, list[int]]:
        per_frame = self.grid.tokens_per_frame
        repeats = {self.processor.video_token_id: frames * per_frame, self.processor.image_token_id: per_frame}
        text = {"input_ids": [], "labels": [], "segment_ids": []}
        for token, label, segment in zip(ids, labels, segments, strict=True):
            count = repeats.get(token, 1)
            text["input_ids"] += [token] * count
            text["labels"] += [label] * count
            text["segment_ids"] += [segment] * count
        return text

    def _pad_texts(self, texts: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        length = max(len(text["input_ids"]) for text in texts)
        pad = self.processor.tokenizer.pad_token_id
        if pad is None:
            raise ValueError("The tokenizer has no padding token; set tokenizer.pad_token.")
        fill = {"input_ids": pad, "labels": IGNORED_LABEL, "segment_ids": -1}
        batch = {
            key: torch.tensor([text[key] + [value] * (length - len(text[key])) for text in texts])
            for key, value in fill.items()
        }
        batch["attention_mask"] = (batch["segment_ids"] >= 0).long()
        if int(batch["segment_ids"].max()) == 0:
            del batch["segment_ids"]  # no sample is packed
        return batch

    def _teacher_features(self, sample: Mapping[str, Any], geometry: dict[str, Tensor] | None) -> Tensor | None:
        features, frames = sample.get("teacher_features"), sample.get("frames")
        if features is None:
            if self.teacher is None or frames is None:
                return None
            if self.teacher.protocol not in (None, self.protocol or "clean"):
                raise ValueError(
                    f"The teacher pools its patches by protocol {self.teacher.protocol!r}, the training is "
                    f"{self.protocol or 'clean'!r}. Give both the same."
                )
            features = self.teacher.compute_features(frames, geometry, self.grid, FrameSource.of_sample(sample))
            if features is None:
                return None
        return check_teacher_features(features, 0 if frames is None else len(frames), self.grid)


def encode_names(names: Sequence[str]) -> Tensor:
    """Encode names as bytes (B, L) uint8, padded by 0: a batch holds tensors only."""
    rows = [torch.tensor(list(name.encode()), dtype=torch.uint8) for name in names]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def decode_names(sample_names: Tensor) -> list[str]:
    """The names that `encode_names` was given."""
    return [bytes(row).rstrip(b"\0").decode() for row in sample_names.tolist()]


def _list_images(sample: Mapping[str, Any]) -> Sequence[Any]:
    images = sample.get("images")
    if images is not None and not isinstance(images, (list, tuple, np.ndarray, Tensor)):
        raise TypeError(f"images must be a list of pictures, got {type(images).__name__}.")
    return () if images is None else list(images)


def _to_json(chat: Sequence[Mapping[str, Any]]) -> str:
    try:
        return json.dumps(chat)
    except TypeError as error:
        raise ValueError(
            f"messages hold something else than text ({error}). Give the video as `frames` and pictures as `images`."
        ) from error


__all__ = ["IDE3DDataCollator", "decode_names", "encode_names"]
