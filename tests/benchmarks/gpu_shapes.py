"""Models and batches of `gpu_parts.py`: 7 B at an eighth of its layers, and the same at tiny sizes."""

import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from modeling_ide3d import IDE3DConfig
from trainer.planning.step_estimate import make_batch

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
SHARE = 8  # of the layers of 7 B one in so many is built
SMALL = {
    "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "image_size": 56},
    "text_config": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
    },
    "image_token_id": 509,
    "video_token_id": 510,
    "ground_token_id": 511,
}


def write_eighth(folder: str | Path, is_small: bool) -> Path:
    """Write config.json of the 7 B model at an eighth of its layers; `is_small` shrinks all widths."""
    config = json.loads((RECIPES / "ide3d_7b_config.json").read_text(encoding="utf-8"))
    for name in ("vision_config", "text_config"):
        config[name]["num_hidden_layers"] = -(-config[name]["num_hidden_layers"] // SHARE)
        config[name] |= SMALL[name] if is_small else {}
    config |= {name: value for name, value in SMALL.items() if is_small and isinstance(value, int)}
    path = Path(folder, "config.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def eighth(is_small: bool) -> IDE3DConfig:
    """Config of the 7 B model at an eighth of its layers."""
    with tempfile.TemporaryDirectory() as folder:
        return IDE3DConfig.from_json_file(write_eighth(folder, is_small))


def build(kind: type[nn.Module], config: IDE3DConfig, device: str, dtype: torch.dtype) -> nn.Module:
    """Model with the same random weights at each call."""
    torch.manual_seed(0)
    with torch.device(device):
        model = kind(config)
    return model.to(dtype)


def draw_batch(config: IDE3DConfig, num_frames: int, text_tokens: int, batch_size: int = 1) -> dict[str, Tensor]:
    """Random pixels and words of `make_batch`, without its geometry."""
    names = ("input_ids", "labels", "attention_mask", "pixel_values_videos")
    made = make_batch(config, batch_size=batch_size, num_frames=num_frames, text_tokens=text_tokens)
    batch = {name: made[name] for name in names}
    draw = torch.Generator().manual_seed(0)
    batch["pixel_values_videos"] = torch.randn(batch["pixel_values_videos"].shape, generator=draw)
    special = (config.image_token_id, config.video_token_id, config.ground_token_id)
    words = torch.tensor([word for word in range(min(500, config.text_config.vocab_size)) if word not in special])
    drawn = words[torch.randint(len(words), batch["input_ids"].shape, generator=draw)]
    batch["input_ids"] = torch.where(batch["input_ids"] == config.video_token_id, batch["input_ids"], drawn)
    batch["labels"] = torch.where(batch["labels"] == -100, -100, batch["input_ids"])
    return batch


def to(device: str, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch on a device."""
    return {name: value.to(device) for name, value in batch.items()}


def pack(batch: dict[str, Tensor], chats: int) -> dict[str, Tensor]:
    """The batch with the text behind its video cut into chats of one length that do not see each other."""
    length = batch["input_ids"].shape[1]
    answer = int((batch["labels"] != -100).sum(1).max())
    size = answer // chats
    segments = torch.zeros_like(batch["input_ids"])
    segments[:, length - chats * size :] = 1 + torch.arange(chats).repeat_interleave(size)
    return {**batch, "segment_ids": segments}
