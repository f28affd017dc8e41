"""A tiny tokenizer, a tiny processor and small videos."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, SiglipImageProcessor

from processing import IDE3DProcessor, IDE3DVideoProcessor

IMAGE_SIZE, PATCH_SIZE, POOL = 70, 14, 2  # 5 x 5 patches, 3 x 3 tokens, 3 x 4 with the newline column
TOKENS_PER_FRAME = 12


def build_tiny_tokenizer(with_placeholders: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level tokenizer without merges: encodes any text exactly, knows ChatML, pads and ends like Qwen2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
    )
    if with_placeholders:
        IDE3DProcessor.add_special_tokens(tokenizer)
    return tokenizer


def build_tiny_processor(**video_kwargs) -> IDE3DProcessor:
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return IDE3DProcessor(
        SiglipImageProcessor(size=size),
        build_tiny_tokenizer(),
        IDE3DVideoProcessor(**{"size": size, "num_frames": 8, **video_kwargs}),
        patch_size=PATCH_SIZE,
        image_size=IMAGE_SIZE,
        spatial_pool_stride=POOL,
    )


def make_frames(count: int, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Random frames (count, height, width, 3), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture
def build_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    return build_tiny_tokenizer


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tiny_tokenizer()


@pytest.fixture
def processor() -> IDE3DProcessor:
    return build_tiny_processor()


@pytest.fixture
def frames() -> Callable[..., np.ndarray]:
    return make_frames


@pytest.fixture
def write_video(tmp_path) -> Callable[..., Path]:
    """Write a video whose k-th frame is a grey of brightness `step * k`, so that a frame tells its index."""

    def write(count: int, name: str = "video.mp4", rate: int = 10, step: int = 4, **options) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream("mpeg4" if not name.endswith("webm") else "libvpx-vp9", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(count):
                picture = np.full((48, 64, 3), index * step, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
