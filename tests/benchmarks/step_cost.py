"""What each geometry term adds to a training step: time, peak memory, and floating-point operations.

    PYTHONPATH=. python tests/benchmarks/step_cost.py [--steps 8] [--skip-full-size]

Terms are added one by one to one small fixed configuration, and the steps of all of them take turns, so that what else
the machine does falls on all alike. Time is the median, memory what the tensors of a step need at their peak. The
last table counts operations of the parts at full size (SigLIP-so400m, Qwen2-7B, 32 frames) without running them.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from processing.rooms import load_rooms
from processing.rooms.samples import room_samples
from trainer import IDE3DDataCollator
from trainer.geometry_criterion import GeometryCriterion
from trainer.nano import build_nano_config, build_nano_model, build_nano_processor
from trainer.teachers import PointMapTeacher

logger = logging.getLogger("step_cost")

TEACHER = ("loss_distillation",)
VALIDATOR = (*TEACHER, "loss_depth")
CROSS_VIEW = (*VALIDATOR, "loss_cross_view_depth", "loss_view_consistency")
CONFIGURATIONS = {"language": (), "+ teacher": TEACHER, "+ validator": VALIDATOR, "+ cross-view": CROSS_VIEW}
NUM_FRAMES, NUM_PAIRS, TEACHER_SIZE = 32, 61, 2048  # a frame with its two next ones: 31 + 30 pairs


def build_small() -> tuple[IDE3DForConditionalGenerationWithGeometry, dict[str, torch.Tensor]]:
    """The fixed configuration: eight layers of width 192 each, 4 frames of 64 pixels, 4 rooms a batch."""
    rooms = load_rooms("train", 4, seed=0, image_size=64, num_frames=4)
    texts = [entry[key] for room in rooms for entry in room["questions"] for key in ("question", "answer")]
    processor = build_nano_processor(texts, image_size=64, patch_size=8, spatial_pool_stride=1, num_frames=4)
    teacher = PointMapTeacher()
    collator = IDE3DDataCollator(processor, teacher=teacher)
    samples = [room_samples(room, collator.grid, reference="word", max_questions=8)[0] for room in rooms]
    torch.manual_seed(0)
    config = build_nano_config(processor, hidden_size=192, vision_layers=8, text_layers=8)
    model = build_nano_model(config, teacher_size=teacher.feature_size, validator={"output_stride": 2})
    model.criterion = GeometryCriterion()
    return model.train(), collator(samples)


def build_step(model: nn.Module, batch: dict[str, torch.Tensor], terms: tuple[str, ...]) -> Callable[[], None]:
    """One step without the optimizer: forward and backward of the language loss and these terms."""

    def step() -> None:
        model.criterion.terms = frozenset(terms)
        model.zero_grad()
        outputs = model(**batch)
        sum((outputs[name] for name in terms), start=outputs.loss).backward()

    return step


def measure_peak(step: Callable[[], None]) -> float:
    """Largest sum of the tensors that a step allocates and has not freed, MB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    held = peak = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def count_operations(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def report_small(steps: int) -> None:
    """Table of the small configuration."""
    model, batch = build_small()
    runs = {name: build_step(model, batch, terms) for name, terms in CONFIGURATIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(steps + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: measure_peak(run) for name, run in runs.items()}
    operations = {name: count_operations(run) for name, run in runs.items()}
    first = next(iter(runs))
    logger.info("%-14s %9s %6s %9s %6s %9s %6s", "step", "ms", "ratio", "peak MB", "ratio", "GFLOP", "ratio")
    for name in runs:
        logger.info(
            "%-14s %9.1f %6.2f %9.1f %6.2f %9.2f %6.2f",
            name,
            1e3 * medians[name],
            medians[name] / medians[first],
            memory[name],
            memory[name] / memory[first],
            operations[name] / 1e9,
            operations[name] / operations[first],
        )


def report_full_size() -> None:
    """Operations of a forward pass by part at full size, on the meta device; backward passes are twice as much."""
    config = IDE3DConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        image_token_id=151646,
        video_token_id=151647,
        ground_token_id=151648,
    )
    with torch.device("meta"):
        validator = GeometricValidatorConfig.from_vision_config(config.vision_config)
        model = IDE3DForConditionalGenerationWithGeometry(config, validator, TEACHER_SIZE)
        frame = torch.zeros(1, 3, config.vision_config.image_size, config.vision_config.image_size)
        rows, cols = config.patch_grid
        level = torch.zeros(1, rows * cols, config.vision_config.hidden_size)
        states = torch.zeros(1, NUM_FRAMES * config.tokens_per_frame, config.text_config.hidden_size)
    core = model.model
    decode = count_operations(lambda: model.geometric_validator.decoder(config.patch_grid, *[level] * 4))
    parts = {
        "vision tower": NUM_FRAMES * count_operations(lambda: core.vision_tower(frame)),
        "language model": count_operations(lambda: model.lm_head(core.language_model(inputs_embeds=states)[0])),
        "teacher": count_operations(lambda: model.teacher_projector(states)),
        "validator": NUM_FRAMES * decode,
        "cross-view": NUM_PAIRS * decode,
    }
    base = parts["vision tower"] + parts["language model"]
    logger.info("\n%-14s %9s %6s   full size, %d frames, %d pairs", "part", "TFLOP", "ratio", NUM_FRAMES, NUM_PAIRS)
    for name, operations in parts.items():
        logger.info("%-14s %9.2f %6.3f", name, operations / 1e12, operations / base)
    geometry = parts["teacher"] + parts["validator"] + parts["cross-view"]
    logger.info("geometry terms together add %.1f%%", 100 * geometry / base)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each configuration")
    parser.add_argument("--skip-full-size", action="store_true", help="leave the second table out")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report_small(words.steps)
    if not words.skip_full_size:
        report_full_size()


if __name__ == "__main__":
    main()
