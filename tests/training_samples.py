"""Tiny training samples of an analytic room (a wall and a ball), and a nano model that takes them."""

from typing import Any

import numpy as np
import torch
from analytic_scenes import camera_to_world, intrinsics, render

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing import IDE3DProcessor
from trainer import IDE3DDataCollator
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor

HEIGHT, WIDTH = 48, 64
# 72 is no multiple of 14: the tower sees the first 70 pixels, 5 x 5 patches, 3 x 3 tokens a frame.
IMAGE_SIZE, PATCH_SIZE, POOL, GRID = 72, 14, 2, (3, 3)
TEACHER_SIZE = 6
WORDS = ["Where is the ball?", "How far is <ground>?", "It is near.", "2 m", "The ball is <ground>.", "Name it."]


def build_processor() -> IDE3DProcessor:
    return build_nano_processor(
        WORDS, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, spatial_pool_stride=POOL, num_frames=2, vocab_size=400
    )


def build_collator(**kwargs: Any) -> IDE3DDataCollator:
    return IDE3DDataCollator(build_processor(), **kwargs)


def build_model(
    *, seed: int = 0, validator: dict | None = None, teacher_size: int | None = TEACHER_SIZE, **config: Any
) -> IDE3DForConditionalGenerationWithGeometry:
    """A nano training model; `validator={}` changes nothing, `validator=False` leaves it out."""
    sizes = {"hidden_size": 32, "vision_layers": 2, "text_layers": 2, "heads": 2}
    configuration = build_nano_config(build_processor(), **sizes)
    for name, value in config.items():
        setattr(configuration, name, value)
    torch.manual_seed(seed)
    validator = None if validator is False else {"layer_indices": (0, 1, 1, 2), **(validator or {})}
    return build_nano_model(configuration, teacher_size=teacher_size, validator=validator)


def chat(question: str = "Where is the ball?", answer: str = "It is near.", kind: str | None = "video") -> list[dict]:
    visual = [] if kind is None else [{"type": kind}]
    return [
        {"role": "user", "content": [*visual, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def poses(views: int, seed: int = 0) -> np.ndarray:
    """Cameras that walk sideways and turn a little."""
    return np.stack(
        [camera_to_world(yaw=0.03 * k, position=(0.08 * k, 0.02 * seed, 0.05 * k)).numpy() for k in range(views)]
    )


def make_sample(
    views: int = 3, *, seed: int = 0, geometry: bool = True, teacher: bool = False, **fields: Any
) -> dict[str, Any]:
    """A video of the room with exact depth, its chat, and whatever `fields` add or replace."""
    camera = intrinsics(focal=60.0 + seed, height=HEIGHT, width=WIDTH)
    walk = poses(views, seed)
    depth = np.stack([render(camera, torch.tensor(pose), height=HEIGHT, width=WIDTH).numpy() for pose in walk])
    noise = np.random.default_rng(seed).integers(0, 60, (views, HEIGHT, WIDTH, 3))
    frames = np.clip(noise + (depth * 50)[..., None], 0, 255).astype(np.uint8)
    sample = {"messages": chat(), "frames": frames}
    if geometry:
        sample |= {"depth": depth, "intrinsics": np.stack([camera.numpy()] * views), "camera_to_world": walk}
    if teacher:
        rng = np.random.default_rng(100 + seed)
        sample["teacher_features"] = rng.normal(size=(views, *GRID, TEACHER_SIZE)).astype(np.float32)
    return {**sample, **fields}


def make_regions(count: int, views: int = 3, seed: int = 0) -> np.ndarray:
    """Random cells, at least one for each region."""
    masks = np.random.default_rng(seed).random((count, views, *GRID)) < 0.3
    masks[np.arange(count), 0, np.arange(count) % GRID[0], 0] = True
    return masks


def make_grounding_sample(views: int = 3, regions: int = 3, target: int | None = 1, **fields: Any) -> dict[str, Any]:
    """Find the ball among `regions`; target None means that it is not among them."""
    targets = np.zeros(regions + 1, bool)
    targets[-1 if target is None else target] = True
    found = {"region_masks": make_regions(regions, views), "region_targets": targets}
    return make_sample(views, **{"messages": chat(answer="The ball is <ground>."), **found, **fields})


def make_mixed_batch() -> list[dict[str, Any]]:
    """Every kind of sample: all supervision, none, packed, grounding, pointing, text only; 1 to 3 frames."""
    return [
        make_sample(3, teacher=True),
        make_sample(1, geometry=False, seed=1),
        make_sample(
            2,
            seed=2,
            messages=[
                chat("How far is <ground>?", "2 m"),
                chat("Name it."),
                chat("How far is <ground>?", "It is near."),
            ],
            region_masks=make_regions(2, 2),
            region_references=[1, 0],
        ),
        make_grounding_sample(2, seed=3, teacher=True),
        {"messages": chat(kind=None)},
    ]
