"""Tiny random models of four families that are not ours, and batches for them by their own video processors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVideoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLVideoProcessor,
)

IMAGE, VIDEO, START, END = 110, 111, 112, 113
QUESTION, ANSWER = [5, 6, 7], [8, 9, 2]
WIDTH = 48
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 120,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": WIDTH,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


def build_qwen2_5_vl() -> PreTrainedModel:
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            # Windows of 2 x 2 tokens: a picture of 3 x 5 tokens has whole and cut ones.
            vision_config={**QWEN_VISION, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
            text_config={**TEXT, "rope_parameters": ROPE},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            vision_end_token_id=END,
        )
    )


def build_qwen3_vl() -> PreTrainedModel:
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            vision_config={
                **QWEN_VISION,
                "patch_size": 16,
                "num_position_embeddings": 36,
                "deepstack_visual_indexes": [0],
            },
            text_config={**TEXT, "head_dim": 12, "rope_parameters": ROPE},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            vision_end_token_id=END,
        )
    )


VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def build_internvl() -> PreTrainedModel:
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config={**VISION, "image_size": [84, 84], "patch_size": [14, 14]},
            text_config={"model_type": "qwen2", **TEXT},
            image_token_id=IMAGE,
            image_seq_length=9,
        )
    )


def build_llava_onevision() -> PreTrainedModel:
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 72, "patch_size": 14}
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            # 72 is no multiple of 14: the tower sees the first 70 pixels, 5 x 5 patches, 3 x 3 tokens a frame.
            vision_config={**vision, "vision_use_head": False},
            text_config={"model_type": "qwen2", **TEXT},
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=[[72, 72]],
        )
    )


@dataclass(frozen=True)
class Host:
    """A family: its model, its video processor, and what its language model sees of a video."""

    name: str
    build: Callable[[], PreTrainedModel]
    processor: Any
    patch_size: int
    merged_frames: int = 1

    def build_model(self, seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        return self.build()

    def build_inputs(self, videos: list[np.ndarray | None], **options: Any) -> dict[str, torch.Tensor]:
        """A batch with a question and an answer each; None: no video."""
        given = [torch.from_numpy(video).permute(0, 3, 1, 2) for video in videos if video is not None]
        inputs: dict[str, torch.Tensor] = {}
        if self.name == "internvl":
            frames = [self._process([video], **options)["pixel_values_videos"][0] for video in given]
            if frames:
                inputs["pixel_values"] = torch.cat(frames)
        elif given:
            inputs = dict(self._process(given, **options))
        spans = iter(self._spans(given, inputs))
        rows = [[1, *(next(spans) if video is not None else []), *QUESTION, *ANSWER] for video in videos]
        longest = max(map(len, rows))
        # Padded on the right, as in training.
        inputs["input_ids"] = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
        inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
        for label, row in zip(inputs["labels"], rows, strict=True):
            label[len(row) - len(ANSWER) : len(row)] = torch.tensor(ANSWER)
        if self.name.startswith("qwen"):
            inputs["mm_token_type_ids"] = 2 * (inputs["input_ids"] == VIDEO).int()
        return inputs

    def _process(self, videos: list[torch.Tensor], **options: Any) -> dict[str, torch.Tensor]:
        return self.processor(videos, do_sample_frames=False, return_tensors="pt", **options)

    def _spans(self, videos: list[torch.Tensor], inputs: dict[str, torch.Tensor]) -> list[list[int]]:
        if self.name == "internvl":
            return [[IMAGE] * 9 * len(video) for video in videos]
        if self.name == "llava_onevision":
            return [[VIDEO] * (9 * len(video) + 1) for video in videos]
        grids = inputs["video_grid_thw"].tolist() if videos else []
        if self.name == "qwen2_5_vl":
            return [[START, *[VIDEO] * (steps * rows * cols // 4), END] for steps, rows, cols in grids]
        # Each time step behind a time of its own.
        return [[10, START, *[VIDEO] * (rows * cols // 4), END] * steps for steps, rows, cols in grids]


def _processor(cls: type, pixels: int, **options: Any) -> Any:
    # One frame may have that many pixels; a batch of frames, as the fourth family counts, eight times as many.
    return cls(size={"shortest_edge": pixels // 64, "longest_edge": pixels}, cap_pixels_per_frame=False, **options)


HOSTS = {
    host.name: host
    for host in (
        Host("qwen2_5_vl", build_qwen2_5_vl, _processor(Qwen2VLVideoProcessor, 13_000, patch_size=14), 14, 2),
        Host("qwen3_vl", build_qwen3_vl, _processor(Qwen3VLVideoProcessor, 80_000, patch_size=16), 16, 2),
        Host("internvl", build_internvl, InternVLVideoProcessor(size={"height": 84, "width": 84}), 14),
        Host(
            "llava_onevision",
            build_llava_onevision,
            LlavaOnevisionVideoProcessor(size={"height": 72, "width": 72}),
            14,
        ),
    )
}
