"""From samples (chats, frames, privileged geometry) to one padded batch."""

import difflib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from processing import IDE3DProcessor
from processing.regions import check_region_masks
from processing.token_grid import TokenGrid
from trainer.data.geometry_inputs import pad_geometry, pad_teacher_features, prepare_geometry, to_tensor
from trainer.geometry.checks import Protocol, check_protocol
from trainer.teachers import FrameSource, Teacher

IGNORED_LABEL = -100
MISSPELT = 0.8  # share of equal letters (difflib) from which a name is taken for another one
NO_MISSPELLINGS = frozenset({"scan_id", "extrinsics"})  # columns that are close to a key and mean something else


class IDE3DDataCollator:
    """Collator of samples of any task, with or without geometry, for the training model.

    A sample is a dict; all keys but `messages` are optional. Further keys, such as the columns `id` or `question` of a
    data set, are ignored. A key that looks misspelt is refused: a name close to one of `optional_keys` that the sample
    lacks, such as `Depth`. `scan_id`, `extrinsics` and longer names such as `depth_path` are names of their own.

    - `messages`: a chat (list of messages with `role` and `content`), or a list of chats about the same video. The
      chats of a list are *packed*: they share one visual prefix, and none sees another.
    - `scene_id`: name of the sample in messages about it; the batch then has `sample_names`.
    - `frame_names`: (V,) str, names of the frames, by which a `TeacherStore` finds their features.
    - `frames`: (V, h, w, 3) uint8, or a list of PIL images; for the one `{"type": "video"}` part of the chat.
    - `images`: PIL images, for the `{"type": "image"}` parts.
    - `depth` (V, hd, wd) metres, `intrinsics` (V, 3, 3) of the frames' pixels, `camera_to_world` (V, 4, 4) metres;
      depth without poses trains the depth term alone.
    - `teacher_features`: (V, rows, cols, C).
    - `region_masks`: (N, V, rows, cols) bool; `region_references`: (R,) region of the k-th `<ground>` of the prompts,
      by default the k-th; `region_targets`: (N + 1,) bool, makes the last `<ground>` a grounding query, or
      (Q, N + 1) for packed chats: a row for each `<ground>` that refers to no region, in order.

    A batch has the keys of the tensor table: `input_ids`, `attention_mask`, `labels`, `pixel_values_videos`,
    `video_frame_mask` (where frame counts differ), `depth`, `intrinsics`, `camera_to_world`, `has_geometry`,
    `has_poses` (where some samples have depth alone), `teacher_features`, `region_masks`, `region_valid`,
    `region_references`, `region_targets`; and `segment_ids` (B, L) where chats are packed: 0 in the shared prefix, k
    in the k-th chat, -1 in the padding. Labels are set on what the assistant says, the end of its turn included.

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

    Attributes:
        optional_keys: Keys that nothing else asks for: without a check, a misspelt one would vanish in silence.

    Raises:
        ValueError: If a key is misspelt, placeholders and frames do not match, frame counts differ, or masks have
            another grid. Also if packed chats do not begin alike, or geometry is broken. It names the sample.
    """

    optional_keys: tuple[str, ...] = (
        "scene_id",
        "frame_names",
        "depth",
        "intrinsics",
        "camera_to_world",
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
    ):
        self.processor = processor
        self.teacher = teacher
        self.label_grounding = label_grounding
        if protocol is not None:
            check_protocol(protocol)
        self.protocol = protocol
        self.grid = TokenGrid.of(processor)
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
        if not samples:
            raise ValueError("Expected at least one sample, got none.")
        prepared = []
        for index, sample in enumerate(samples):
            try:
                prepared.append(self._prepare(sample))
            except ValueError as error:
                raise ValueError(f"Sample {self._name(sample, index)!r}: {error}") from error
        batch = self._pad_texts([sample["text"] for sample in prepared])
        if any("scene_id" in sample for sample in samples):
            batch["sample_names"] = encode_names([str(self._name(s, index)) for index, s in enumerate(samples)])
        videos = [sample["frames"] for sample in samples if sample.get("frames") is not None]
        if videos:
            videos = [list(video) if isinstance(video, tuple) else video for video in videos]
            batch.update(self.processor.video_processor(videos, do_sample_frames=False, return_tensors="pt"))
            if batch["video_frame_mask"].all():
                del batch["video_frame_mask"]  # a full mask costs a copy of the frames, and a compiled graph its whole
        images = [image for sample in samples for image in _images(sample)]
        if images:
            batch["pixel_values"] = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        num_frames = max((len(video) for video in videos), default=0)
        batch.update(pad_geometry([sample["geometry"] for sample in prepared], num_frames, self.grid))
        batch.update(pad_teacher_features([sample["teacher_features"] for sample in prepared], num_frames))
        if any(sample["has_regions"] for sample in prepared):
            batch.update(self._pad_regions(prepared))
        return batch

    def _prepare(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Check a sample and lay all of it but its pixels on the vision input."""
        check_keys(frozenset(str(key) for key in sample if sample[key] is not None), self.optional_keys)
        text = self._text(sample)
        geometry = prepare_geometry(sample, self.grid, self.protocol or "clean")
        return {
            "text": text,
            "geometry": geometry,
            "teacher_features": self._teacher_features(sample, geometry),
            **self._sample_regions(sample, text["input_ids"].count(self.processor.ground_token_id)),
        }

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

    def _text(self, sample: Mapping[str, Any]) -> dict[str, list[int]]:
        """Token ids, labels and segments of a sample, visual placeholders expanded."""
        messages = sample.get("messages")
        if not messages:
            raise ValueError(
                f"messages is {'missing' if messages is None else 'empty'}; expected a chat or a list of chats."
            )
        chats = [messages] if isinstance(messages[0], (Mapping, str)) else messages
        for chat in chats:
            _check_chat(chat)
        encoded = [self._tokenize(_to_json(chat)) for chat in chats]
        frames, images = sample.get("frames"), _images(sample)
        self._check_placeholders(encoded[0][0], frames, images)
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
        return self._expand(ids, labels, segments, 0 if frames is None else len(frames))

    def _check_placeholders(self, ids: Sequence[int], frames: Any, images: Sequence) -> None:
        num_videos = ids.count(self.processor.video_token_id)
        if num_videos != (frames is not None):
            raise ValueError(
                f"messages have {num_videos} video parts and the sample {int(frames is not None)} videos: give "
                '`frames` for the one {"type": "video"} part.'
            )
        if frames is not None:
            is_path = isinstance(frames, (str, Path))
            if not is_path and len(frames) == 0:
                raise ValueError("frames is empty; a video needs at least one frame.")
            if is_path or isinstance(frames[0], (str, Path)):
                raise ValueError(
                    "frames must be an array (V, h, w, 3) or PIL images, got file names. Read them before."
                )
        num_images = ids.count(self.processor.image_token_id)
        if num_images != len(images):
            raise ValueError(f"messages have {num_images} image parts and the sample {len(images)} images.")

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
        features = to_tensor(features)
        expected = (0 if frames is None else len(frames), *self.grid.shape)
        if tuple(features.shape[:-1]) != expected:
            raise ValueError(f"teacher_features must have shape {(*expected, 'C')}, got {tuple(features.shape)}.")
        return features

    def _sample_regions(self, sample: Mapping[str, Any], num_ground_tokens: int) -> dict[str, Any]:
        masks, targets = sample.get("region_masks"), sample.get("region_targets")
        frames = sample.get("frames")
        num_frames = (0 if frames is None else len(frames)) + len(_images(sample))
        has_regions = masks is not None
        if has_regions:
            masks = to_tensor(masks)
        else:
            for key in ("region_references", "region_targets"):
                if sample.get(key) is not None:
                    raise ValueError(f"{key} need region_masks, which say where the regions are.")
            masks = torch.zeros(0, num_frames, *self.grid.shape, dtype=torch.bool)
        check_region_masks(masks, self.grid, num_frames)
        if targets is not None:
            targets = to_tensor(targets).bool()
            if targets.ndim not in (1, 2) or targets.shape[-1] != len(masks) + 1 or not targets.any(-1).all():
                raise ValueError(
                    f"region_targets must be bool ({len(masks) + 1},), or such a row a query, with a true entry; "
                    f"the last means no such object. Got {targets.tolist()}."
                )
        references = self._references(sample, len(masks))
        if num_ground_tokens < len(references):
            raise ValueError(
                f"The chats have {num_ground_tokens} <ground> tokens for {len(references)} references: write one "
                "<ground> per region that a question points at."
            )
        if targets is not None:
            self._check_queries(targets, num_ground_tokens - sum(reference >= 0 for reference in references))
        return {"has_regions": has_regions, "masks": masks, "references": references, "targets": targets}

    @staticmethod
    def _check_queries(targets: Tensor, num_queries: int) -> None:
        if num_queries == 0:
            raise ValueError("region_targets are given, but the chat has no <ground> token to answer with.")
        if targets.ndim == 2 and len(targets) != num_queries:
            raise ValueError(
                f"region_targets have {len(targets)} rows for {num_queries} <ground> tokens that refer to no region: "
                "give one row per query, in the order of the chats."
            )

    def _pad_regions(self, prepared: list[dict[str, Any]]) -> dict[str, Tensor]:
        masks, references, targets = ([s[key] for s in prepared] for key in ("masks", "references", "targets"))
        num_regions, num_frames = max(map(len, masks)), max(mask.shape[1] for mask in masks)
        batch = {
            "region_masks": torch.zeros(len(masks), num_regions, num_frames, *self.grid.shape, dtype=torch.bool),
            "region_valid": torch.zeros(len(masks), num_regions, dtype=torch.bool),
            "region_references": torch.full((len(masks), max(map(len, references))), -1),
        }
        for index, (mask, reference) in enumerate(zip(masks, references, strict=True)):
            batch["region_masks"][index, : len(mask), : mask.shape[1]] = mask
            batch["region_valid"][index, : len(mask)] = True
            batch["region_references"][index, : len(reference)] = torch.tensor(reference, dtype=torch.long)
        if any(target is not None for target in targets):
            batch["region_targets"] = self._pad_targets(targets, num_regions)
        return batch

    @staticmethod
    def _pad_targets(targets: list[Tensor | None], num_regions: int) -> Tensor:
        """Targets (B, N + 1), or (B, Q, N + 1) if a sample packs several queries; rows without a query are False."""
        rows = [target.reshape(-1, target.shape[-1]) if target is not None else None for target in targets]
        num_queries = max(len(target) for target in rows if target is not None)
        batch = torch.zeros(len(rows), num_queries, num_regions + 1, dtype=torch.bool)
        for index, target in enumerate(rows):
            if target is not None:
                batch[index, : len(target), : target.shape[1] - 1] = target[:, :-1]
                batch[index, : len(target), -1] = target[:, -1]
        return batch.squeeze(1) if num_queries == 1 else batch

    @staticmethod
    def _references(sample: Mapping[str, Any], num_regions: int) -> list[int]:
        references = sample.get("region_references")
        if references is None:
            # Of a grounding sample all regions are candidates.
            return [] if sample.get("region_targets") is not None else list(range(num_regions))
        references = [int(reference) for reference in references]
        if any(not -1 <= reference < num_regions for reference in references):
            raise ValueError(f"region_references must name one of {num_regions} regions, got {references}.")
        return references


@functools.cache
def check_keys(given: frozenset[str], optional: tuple[str, ...]) -> None:
    """Raise ValueError for a key that is close to an absent optional key."""
    missing = {_simplify(key): key for key in optional if key not in given}
    for key in sorted(given - set(optional) - NO_MISSPELLINGS):
        name = _simplify(key)
        close = [missing[other] for other in difflib.get_close_matches(name, missing, cutoff=MISSPELT)]
        if close and not name.startswith(f"{close[0]}_"):  # `depth_path` is something else
            raise ValueError(
                f"Unknown key {key!r}: did you mean {' or '.join(map(repr, close))}? Rename it or leave it out."
            )


def _simplify(key: str) -> str:
    return key.lower().replace("-", "_").replace(" ", "_")


def encode_names(names: Sequence[str]) -> Tensor:
    """Encode names as bytes (B, L) uint8, padded by 0: a batch holds tensors only."""
    rows = [torch.tensor(list(name.encode()), dtype=torch.uint8) for name in names]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def decode_names(sample_names: Tensor) -> list[str]:
    """The names that `encode_names` was given."""
    return [bytes(row).rstrip(b"\0").decode() for row in sample_names.tolist()]


def _images(sample: Mapping[str, Any]) -> Sequence[Any]:
    images = sample.get("images")
    return () if images is None else images


def _check_chat(chat: Any) -> None:
    is_chat = isinstance(chat, Sequence) and not isinstance(chat, str)
    for message in chat if is_chat else (None,):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ValueError(f"A chat is a list of messages with role and content, got {message or chat!r}.")


def _to_json(chat: Sequence[Mapping[str, Any]]) -> str:
    try:
        return json.dumps(chat)
    except TypeError as error:
        raise ValueError(
            f"messages hold something else than text ({error}). Give the video as `frames` and pictures as `images`."
        ) from error


__all__ = ["IDE3DDataCollator", "decode_names", "encode_names"]
