"""A nano model, its processor, a video and one batch, for the tests of what is exported."""

from pathlib import Path

import av
import numpy as np
import torch

from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor

NUM_FRAMES = 4
CODE_FILES = {
    "configuration_ide3d.py",
    "downloads_ide3d.py",
    "frame_colours_ide3d.py",
    "frame_order_ide3d.py",
    "frame_times_ide3d.py",
    "generation_ide3d.py",
    "grounding_ide3d.py",
    "chat_rules_ide3d.py",
    "option_rules_ide3d.py",
    "pixel_rules_ide3d.py",
    "image_opening_ide3d.py",
    "image_reading_ide3d.py",
    "image_wholeness_ide3d.py",
    "inputs_ide3d.py",
    "loading_ide3d.py",
    "modeling_ide3d.py",
    "outputs_ide3d.py",
    "processing_ide3d.py",
    "processor_files_ide3d.py",
    "video_decoding_ide3d.py",
    "video_entries_ide3d.py",
    "video_packets_ide3d.py",
    "video_processing_ide3d.py",
    "video_reading_ide3d.py",
    "video_seeking_ide3d.py",
    "video_sources_ide3d.py",
    "video_torchcodec_ide3d.py",
}
EXPORT_FILES = CODE_FILES | {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def build_processor(**kwargs) -> IDE3DProcessor:
    """5 x 5 patches, 3 x 3 tokens a frame."""
    sizes = {"image_size": 70, "patch_size": 14, "spatial_pool_stride": 2, "num_frames": NUM_FRAMES}
    return build_nano_processor(["Where is the lamp?", "on the table"], **{**sizes, "vocab_size": 280, **kwargs})


def build_training_model(processor: IDE3DProcessor, seed: int = 0) -> IDE3DForConditionalGenerationWithGeometry:
    """Two layers in each tower, a light validator and a teacher projector; the same weights for a seed."""
    torch.manual_seed(seed)
    config = build_nano_config(processor, hidden_size=32, vision_layers=2, text_layers=2, heads=2)
    return build_nano_model(config, teacher_size=24, validator={}).eval()


def build_model(processor: IDE3DProcessor, seed: int = 0, **fields) -> IDE3DForConditionalGeneration:
    """The inference model alone; `fields` change its config."""
    torch.manual_seed(seed)
    config = build_nano_config(processor, hidden_size=32, vision_layers=2, text_layers=2, heads=2)
    for name, value in fields.items():
        setattr(config, name, value)
    return IDE3DForConditionalGeneration(config).eval()


def write_video(path: Path, count: int = 6) -> Path:
    """An .mp4 of `count` frames of 64 x 48 pixels, a bright square that wanders over a gradient."""
    frames = []
    for index in range(count):
        picture = np.linspace(0, 160, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
        picture[10:20, 8 * index : 8 * index + 10] = 255
        frames.append(picture)
    return write_frames(path, np.stack(frames))


def write_frames(path: Path, frames: np.ndarray, codec: str = "mpeg4") -> Path:
    """An .mp4 of frames (V, h, w, 3), uint8."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def build_inputs(processor: IDE3DProcessor, video: Path, **kwargs) -> dict[str, torch.Tensor]:
    """A question about a video, tokenized."""
    content = [{"type": "video", "path": str(video)}, {"type": "text", "text": "Where is the lamp?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt", **kwargs
    )
    return {key: value.contiguous() for key, value in inputs.items()}


def names_in(folder: Path) -> set[str]:
    """Names of all files and folders, hidden ones too."""
    return {path.name for path in folder.iterdir()}


def contents_of(folder: Path) -> dict[str, bytes]:
    """Content of each file."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
