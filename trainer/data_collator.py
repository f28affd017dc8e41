"""From samples (chats, frames, privileged geometry) to one padded batch."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from processing import IDE3DProcessor
from processing.regions import TokenGrid, check_region_masks
from trainer.geometry import check_camera_to_world, check_depth, check_intrinsics, scale_intrinsics
from trainer.teachers import Teacher

IGNORED_LABEL = -100
GEOMETRY_KEYS = ("depth", "intrinsics", "camera_to_world")


class IDE3DDataCollator:
    """Collates samples of any task, with or without geometry, into the inputs of the training model.

    A sample is a dict; all keys but `messages` are optional:

    - `messages`: a chat (list of messages with `role` and `content`), or a list of chats about the same video. The
      chats of a list are *packed*: they share one visual prefix, and none sees another.
    - `frames`: (V, h, w, 3) uint8, or a list of PIL images; for the one `{"type": "video"}` part of the chat.
    - `images`: PIL images, for the `{"type": "image"}` parts.
    - `depth` (V, hd, wd) metres, `intrinsics` (V, 3, 3) of the frames' pixels, `camera_to_world` (V, 4, 4) metres.
    - `teacher_features`: (V, rows, cols, C).
    - `region_masks`: (N, V, rows, cols) bool; `region_references`: (R,) region of the k-th `<ground>` of the prompts,
      by default the k-th; `region_targets`: (N + 1,) bool, makes the last `<ground>` a grounding query.

    A batch has the keys of the tensor table: `input_ids`, `attention_mask`, `labels`, `pixel_values_videos`,
    `video_frame_mask` (where frame counts differ), `depth`, `intrinsics`, `camera_to_world`, `has_geometry`,
    `teacher_features`, `region_masks`, `region_valid`, `region_references`, `region_targets`; and `segment_ids` (B, L)
    where chats are packed: 0 in the shared prefix, k in the k-th chat, -1 in the padding. Labels are set on what the
    assistant says, the end of its turn included.

    Args:
        processor: Gives tokenizer, chat template, video processor and token grid.
        teacher: Computes `teacher_features` for samples that bring none.
        label_grounding: Whether the answer of a grounding sample is a target of the language loss too. Official: no,
            the contrast between regions replaces it; then the model never learns to write `<ground>`.
        protocol: "clean" resizes depth by pixel centres, "paper" by corners as the original.

    Raises:
        ValueError: Placeholders and frames do not match, frame counts differ, masks have another grid, packed chats
            do not begin alike, or geometry is broken; the message names the sample.
    """

    def __init__(
        self,
        processor: IDE3DProcessor,
        teacher: Teacher | None = None,
        label_grounding: bool = True,
        protocol: Literal["clean", "paper"] = "clean",
    ):
        self.processor = processor
        self.teacher = teacher
        self.label_grounding = label_grounding
        self.protocol = protocol
        self.grid = TokenGrid(processor.image_size, processor.patch_size, processor.spatial_pool_stride)
        # A room's chats come again every epoch.
        self._tokenize = functools.lru_cache(maxsize=100_000)(self._tokenize_chat)

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate."""
        if not samples:
            raise ValueError("Expected at least one sample, got none.")
        texts = []
        for index, sample in enumerate(samples):
            try:
                texts.append(self._text(sample))
            except ValueError as error:
                raise ValueError(f"{self._name(sample, index)}: {error}") from error
        batch = self._pad_texts(texts)
        videos = [sample["frames"] for sample in samples if sample.get("frames") is not None]
        if videos:
            videos = [list(video) if isinstance(video, tuple) else video for video in videos]
            batch.update(self.processor.video_processor(videos, do_sample_frames=False, return_tensors="pt"))
        images = [image for sample in samples for image in sample.get("images") or ()]
        if images:
            batch["pixel_values"] = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        num_frames = max((len(video) for video in videos), default=0)
        batch.update(self._geometry(samples, num_frames))
        batch.update(self._regions(samples, max(num_frames, 1)))
        return batch

    @staticmethod
    def _name(sample: Mapping[str, Any], index: int) -> str:
        return f"Sample {sample.get('scene_id', index)!r}"

    def _tokenize_chat(self, chat: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        encoded = self.processor.tokenizer.apply_chat_template(
            json.loads(chat),
            chat_template=self.processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return tuple(encoded["input_ids"]), tuple(encoded["assistant_masks"])

    def _text(self, sample: Mapping[str, Any]) -> dict[str, list[int]]:
        """Token ids, labels and segments of a sample, visual placeholders expanded."""
        messages = sample["messages"]
        if not messages:
            raise ValueError("messages is empty; expected a chat or a list of chats.")
        chats = [messages] if isinstance(messages[0], Mapping) else messages
        encoded = [self._tokenize(json.dumps(chat)) for chat in chats]
        frames, images = sample.get("frames"), sample.get("images") or ()
        self._check_placeholders(encoded[0][0], frames, images)
        is_query_labelled = self.label_grounding or sample.get("region_targets") is None
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
        if frames is not None and len(frames) == 0:
            raise ValueError("frames is empty; a video needs at least one frame.")
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

    def _geometry(self, samples: Sequence[Mapping[str, Any]], num_frames: int) -> dict[str, Tensor]:
        """Depth, cameras and teacher features on the pixels and tokens of the vision input."""
        height, width = self.grid.image_size
        shapes = {"depth": (height, width), "intrinsics": (3, 3), "camera_to_world": (4, 4)}
        per_sample, teacher_features = [], []
        for index, sample in enumerate(samples):
            try:
                geometry = self._sample_geometry(sample)
                per_sample.append(geometry)
                teacher_features.append(self._teacher_features(sample, geometry))
            except ValueError as error:
                raise ValueError(f"{self._name(sample, index)}: {error}") from error
        batch = {}
        if any(geometry is not None for geometry in per_sample):
            for key in GEOMETRY_KEYS:
                batch[key] = torch.zeros(len(samples), num_frames, *shapes[key])
                if key != "depth":  # a camera that is never read still has to be one
                    batch[key][:] = torch.eye(shapes[key][0])
            for index, geometry in enumerate(per_sample):
                for key, value in (geometry or {}).items():
                    batch[key][index, : len(value)] = value
            batch["has_geometry"] = torch.tensor([geometry is not None for geometry in per_sample])
        given = [features for features in teacher_features if features is not None]
        if given:
            batch["teacher_features"] = given[0].new_zeros(len(samples), num_frames, *given[0].shape[1:])
            for index, features in enumerate(teacher_features):
                if features is not None:
                    batch["teacher_features"][index, : len(features)] = features
        return batch

    def _sample_geometry(self, sample: Mapping[str, Any]) -> dict[str, Tensor] | None:
        given = [key for key in GEOMETRY_KEYS if sample.get(key) is not None]
        if not given:
            return None
        if len(given) < len(GEOMETRY_KEYS):
            raise ValueError(f"Geometry needs {GEOMETRY_KEYS} together, got only {given}.")
        depth, intrinsics, poses = (torch.as_tensor(np.asarray(sample[key])).float() for key in GEOMETRY_KEYS)
        frames = sample["frames"]
        if not len(frames) == len(depth) == len(intrinsics) == len(poses):
            raise ValueError(
                f"frames, depth, intrinsics and camera_to_world must have one entry a frame, got {len(frames)}, "
                f"{len(depth)}, {len(intrinsics)} and {len(poses)}."
            )
        check_depth(depth)
        check_intrinsics(intrinsics)
        check_camera_to_world(poses)
        frame_height, frame_width = self._frame_size(frames)
        height, width = self.grid.image_size
        mode = "nearest-exact" if self.protocol == "clean" else "nearest"
        return {
            "depth": torch.nn.functional.interpolate(depth[None], size=(height, width), mode=mode)[0],
            "intrinsics": scale_intrinsics(intrinsics, width / frame_width, height / frame_height),
            "camera_to_world": poses,
        }

    @staticmethod
    def _frame_size(frames: Any) -> tuple[int, int]:
        first = frames[0]
        return (first.height, first.width) if hasattr(first, "height") else tuple(np.asarray(first).shape[:2])

    def _teacher_features(self, sample: Mapping[str, Any], geometry: dict[str, Tensor] | None) -> Tensor | None:
        features = sample.get("teacher_features")
        if features is None:
            if self.teacher is None or sample.get("frames") is None:
                return None
            return self.teacher.compute_features(sample["frames"], geometry, self.grid)
        features = torch.as_tensor(features)
        expected = (len(sample.get("frames") if sample.get("frames") is not None else ()), *self.grid.shape)
        if tuple(features.shape[:-1]) != expected:
            raise ValueError(f"teacher_features must have shape {(*expected, 'C')}, got {tuple(features.shape)}.")
        return features

    def _regions(self, samples: Sequence[Mapping[str, Any]], num_frames: int) -> dict[str, Tensor]:
        if all(sample.get("region_masks") is None for sample in samples):
            return {}
        masks = []
        for index, sample in enumerate(samples):
            mask = sample.get("region_masks")
            own_frames = len(sample["frames"]) if sample.get("frames") is not None else len(sample.get("images") or ())
            mask = torch.zeros(0, own_frames, *self.grid.shape, dtype=torch.bool) if mask is None else mask
            try:
                check_region_masks(mask, self.grid, own_frames)
            except ValueError as error:
                raise ValueError(f"{self._name(sample, index)}: {error}") from error
            masks.append(torch.as_tensor(mask))
        num_regions = max(len(mask) for mask in masks)
        references = [self._references(sample, mask) for sample, mask in zip(samples, masks, strict=True)]
        batch = {
            "region_masks": torch.zeros(len(samples), num_regions, num_frames, *self.grid.shape, dtype=torch.bool),
            "region_valid": torch.zeros(len(samples), num_regions, dtype=torch.bool),
            "region_references": torch.full((len(samples), max(map(len, references))), -1),
        }
        for index, (mask, reference) in enumerate(zip(masks, references, strict=True)):
            batch["region_masks"][index, : len(mask), : mask.shape[1]] = mask
            batch["region_valid"][index, : len(mask)] = True
            batch["region_references"][index, : len(reference)] = torch.as_tensor(reference)
        if any(sample.get("region_targets") is not None for sample in samples):
            batch["region_targets"] = torch.zeros(len(samples), num_regions + 1, dtype=torch.bool)
            for index, (sample, mask) in enumerate(zip(samples, masks, strict=True)):
                if sample.get("region_targets") is not None:
                    targets = torch.as_tensor(sample["region_targets"], dtype=torch.bool)
                    if targets.shape != (len(mask) + 1,) or not targets.any():
                        raise ValueError(
                            f"{self._name(sample, index)}: region_targets must be bool ({len(mask) + 1},) with a true "
                            f"entry; the last means no such object. Got {targets.tolist()}."
                        )
                    batch["region_targets"][index, : len(mask)] = targets[:-1]
                    batch["region_targets"][index, -1] = targets[-1]
        return batch

    @staticmethod
    def _references(sample: Mapping[str, Any], mask: Tensor) -> list[int]:
        references = sample.get("region_references")
        if references is None:
            # Of a grounding sample all regions are candidates.
            return [] if sample.get("region_targets") is not None else list(range(len(mask)))
        references = [int(reference) for reference in references]
        if any(not -1 <= reference < len(mask) for reference in references):
            raise ValueError(f"region_references must name one of {len(mask)} regions, got {references}.")
        return references


__all__ = ["IDE3DDataCollator"]
