"""What each geometry term adds to a training step: time, peak memory, and floating-point operations.

    PYTHONPATH=. python tests/benchmarks/step_cost.py [--steps 8] [--protocol paper] [--skip-full-size]
    PYTHONPATH=. python tests/benchmarks/step_cost.py --layers vision.18 language.14 language.28

Terms are added one by one to one small fixed configuration, and the steps of all of them take turns, so that what else
the machine does falls on all alike. Time is the processor's, a median, and memory what the tensors of a step need at
their peak. The last two tables count a step by part at full size (SigLIP-so400m, Qwen2-7B, 32 frames) without running
it: by default, and with the terms of cameras and a teacher of the `--layers` as well.
"""

import argparse
import copy
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from processing.rooms import load_rooms
from processing.rooms.samples import room_samples
from trainer import IDE3DDataCollator, IDE3DTrainingArguments
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.planning.step_estimate import estimate_step, make_batch
from trainer.planning.step_recorder import GEOMETRY_PARTS, StepRecorder
from trainer.supervision.criterion import GeometryCriterion
from trainer.teachers import PointMapTeacher

logger = logging.getLogger("step_cost")

TEACHER = ("loss_distillation",)
VALIDATOR = (*TEACHER, "loss_depth")
CROSS_VIEW = (*VALIDATOR, "loss_cross_view_depth", "loss_view_consistency")
CAMERAS = (*CROSS_VIEW, "loss_pose", "loss_scale")
CONFIGURATIONS = {
    "language": (),
    "+ teacher": TEACHER,
    "+ validator": VALIDATOR,
    "+ cross-view": CROSS_VIEW,
    "+ cameras": CAMERAS,
    "+ layers": CAMERAS,  # the teacher is compared with three hidden states
}
SMALL_LAYERS = ["vision.6", "language.4", "language.8"]
LAYERS = ["vision.18", "language.14", "language.28"]  # of 26 and 28
CONFIG = Path(__file__).parents[2] / "examples" / "recipes" / "ide3d_7b_config.json"
NUM_FRAMES, TEACHER_SIZE, NATIVE_SIZE = 32, 2048, (480, 640)


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
    for head in ("pose_head", "scale_head"):
        model.add_camera_head(head)
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


def report_small(steps: int) -> None:
    """Table of the small configuration; the share is that of the part in the time of the last step."""
    model, batch = build_small()
    several = copy.deepcopy(model)
    several.read_layers(SMALL_LAYERS, None)
    models = {name: several if name == "+ layers" else model for name in CONFIGURATIONS}
    runs = {name: build_step(models[name], batch, terms) for name, terms in CONFIGURATIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(steps + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:  # the first one warms up
                times[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: measure_peak(run) for name, run in runs.items()}
    operations = {}
    for name, run in runs.items():
        with StepRecorder(models[name]) as recorder:
            run()
        operations[name] = recorder.operations.total()
    first, last = next(iter(runs)), next(reversed(runs))
    logger.info(
        "%-14s %9s %6s %6s %9s %6s %9s %6s", "step", "ms", "ratio", "share", "peak MB", "ratio", "GFLOP", "ratio"
    )
    before = 0.0
    for name in runs:
        logger.info(
            "%-14s %9.1f %6.2f %5.1f%% %9.1f %6.2f %9.2f %6.2f",
            name,
            1e3 * medians[name],
            medians[name] / medians[first],
            100 * (medians[name] - before) / medians[last],
            memory[name],
            memory[name] / memory[first],
            operations[name] / 1e9,
            operations[name] / operations[first],
        )
        before = medians[name]


def report_full_size(protocol: str, layers: list[str]) -> None:
    """Operations of a training step by part at full size, from a fake step.

    Every term of the protocol is on, and with `layers` those of cameras too.
    """
    config = IDE3DConfig.from_json_file(CONFIG)
    with torch.device("meta"):
        validator = GeometricValidatorConfig.from_vision_config(config.vision_config, protocol=protocol)
        model = IDE3DForConditionalGenerationWithGeometry(config, validator, TEACHER_SIZE)
    options = {"pose_weight": 1.0, "scale_weight": 1.0, "distillation_layers": layers} if layers else {}
    args = IDE3DTrainingArguments(
        output_dir="unused", report_to="none", use_cpu=True, bf16=True, protocol=protocol, **options
    )
    native = NATIVE_SIZE if protocol == "paper" else None
    batch = make_batch(config, num_frames=NUM_FRAMES, teacher_size=TEACHER_SIZE, native_size=native)
    estimate = estimate_step(model.to(torch.bfloat16), batch, args)
    geometry = {part: estimate.operations[part] for part in GEOMETRY_PARTS}
    base = sum(estimate.operations.values()) - sum(geometry.values())
    logger.info(
        "\n%-14s %9s %6s   full size, %d frames, %d pairs, protocol %s, teacher of %s",
        "part", "TFLOP", "ratio", NUM_FRAMES, estimate.num_pairs, protocol, ", ".join(model.distillation_layers),
    )  # fmt: skip
    for name, operations in estimate.operations.items():
        logger.info("%-14s %9.2f %6.3f", name, operations / 1e12, operations / base)
    logger.info("geometry terms together add %.1f%%", 100 * sum(geometry.values()) / base)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each configuration")
    parser.add_argument("--protocol", choices=("clean", "paper"), default="clean", help="of the table at full size")
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="hidden states of the teacher, last table")
    parser.add_argument("--skip-small", action="store_true", help="leave the first table out")
    parser.add_argument("--skip-full-size", action="store_true", help="leave the other tables out")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not words.skip_small:
        report_small(words.steps)
    if not words.skip_full_size:
        report_full_size(words.protocol, [])
        report_full_size(words.protocol, words.layers)


if __name__ == "__main__":
    main()
