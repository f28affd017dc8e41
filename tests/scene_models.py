"""A tiny model with random weights that reads and writes the words of a nano processor."""

import torch
from conftest import build_tiny_config

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from trainer.nano.build import build_nano_processor

SCENE_QUESTIONS = (
    "How many chairs are there?",
    "What is on the table beside the red lamp?",
    "Is it dark?",
    "Which one is closer to the window, the sofa or the bed?",
)
SCENE_FRAMES = 3


def build_scene_processor() -> IDE3DProcessor:
    return build_nano_processor(
        SCENE_QUESTIONS, image_size=70, patch_size=14, spatial_pool_stride=2, num_frames=SCENE_FRAMES, vocab_size=400
    )


def build_scene_model(processor: IDE3DProcessor, seed: int = 0, **text) -> IDE3DForConditionalGeneration:
    """`text` changes the language model."""
    ids = {f"{name}_token_id": getattr(processor, f"{name}_token_id") for name in ("image", "video", "ground")}
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    torch.manual_seed(seed)
    model = IDE3DForConditionalGeneration(build_tiny_config(text={**vocabulary, **text}, **ids)).eval()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    return model
