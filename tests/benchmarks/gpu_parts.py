"""Parts of `gpu_report.py`, each in a process of its own, which adds its rows to a file as they are found.

    PYTHONPATH=.:tests python tests/benchmarks/gpu_parts.py equality-nano --output rows.jsonl

With `--device cpu --small` the same lines run at tiny sizes. The full size is that of the recipes of 7 B at an eighth
of their layers, with random weights.
"""

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import torch
from benchmarks import scene_cache
from benchmarks.evaluation_processes import start_processes
from benchmarks.gpu_shapes import RECIPES, build, draw_batch, eighth, pack, to, write_eighth
from equal_gradients import largest_difference
from torch import Tensor, nn
from transformers import TrainerCallback

from ide3d import nano_model
from ide3d.environment import describe_environment
from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from trainer import IDE3DTrainer
from trainer.planning.step_estimate import make_batch
from trainer.processes import leave_processes
from trainer.recipes.arguments import read_recipe
from trainer.recipes.models import adapt, build_validator, read_config, validator_changes
from trainer.recipes.plan import NATIVE_SIZE, NUM_REGIONS, dry_run

TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the norm; rounding of one step
GPU_MARK = re.compile(r"^@pytest\.mark\.gpu$", re.MULTILINE)


@dataclasses.dataclass
class Part:
    """Where a part runs, and the rows that it finds.

    Args:
        device: "cuda" or "cpu".
        is_small: Whether sizes are tiny.
        output: File of the rows, a JSON object a line.
    """

    device: str
    is_small: bool
    output: Path

    def add(self, what: str, result: str, verdict: str = "") -> None:
        """Add a row at once: what a process found before it died is kept."""
        with self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "result": result, "verdict": verdict}) + "\n")

    @contextmanager
    def row(self, what: str) -> Iterator[None]:
        """Make an error inside a row; the part goes on."""
        try:
            yield
        except Exception as error:
            self.add(what, "", f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def seconds(self, run: Callable[[], object], repeats: int = 5) -> float:
        """Median of several runs behind one that is not counted."""
        times = []
        for _ in range(repeats + 1):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    def wait(self) -> None:
        """Wait for what the device still computes."""
        if self.device != "cpu":
            torch.accelerator.synchronize()

    def peak(self, run: Callable[[], object]) -> float | None:
        """Peak of the device's memory in GB during a run, what lies there before included; None on a CPU."""
        if self.device == "cpu":
            run()
            return None
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() / 1024**3


def name_of(dtype: torch.dtype) -> str:
    """Name of a number type."""
    return str(dtype).removeprefix("torch.")


def judge(error: float, tolerance: float) -> str:
    """Verdict on an error relative to a norm; NaN fails."""
    return "ok" if error <= tolerance else f"failed: more than {tolerance:g}"


def compare_attention(part: Part, load: Callable[[torch.dtype, str], nn.Module], num_frames: int, place: str) -> None:
    """Logits of every attention kind and number type, beside eager attention in float32 on `place`."""
    model = load(torch.float32, place)
    batch = draw_batch(model.config, num_frames, text_tokens=128, batch_size=2)
    batch["attention_mask"][0, :8] = 0  # a shorter text, padded on the left
    del batch["labels"]

    @torch.no_grad()
    def answer(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return model(**inputs, logits_to_keep=32).logits

    model.set_attn_implementation("eager")
    expected = answer(model, to(place, batch)).float().cpu()
    inputs, kinds = to(part.device, batch), describe_environment().attention
    if part.device == "cpu":
        kinds = [kind for kind in kinds if kind in ("eager", "sdpa")]  # flex compiles C++ there for minutes
    for dtype, tolerance in TOLERANCES.items():
        model = reference = None  # the last one is freed first
        model = load(dtype, part.device)
        for kind in sorted(kinds, key=lambda kind: kind != "sdpa"):
            if kind.startswith("flash") and dtype == torch.float32:
                continue  # it has no kernel for it
            what = f"{kind}, {name_of(dtype)}"
            with part.row(what):
                model.set_attn_implementation(kind)
                logits = answer(model, inputs).float().cpu()
                error = float((logits - expected).norm() / expected.norm())
                same = float((logits.argmax(-1) == expected.argmax(-1)).float().mean())
                seconds = part.seconds(lambda model=model: answer(model, inputs))
                reference = reference or seconds
                result = f"logits off by {error:.1e} of their norm, {100 * same:.0f} % of the words the same, "
                result += f"{seconds / reference:.2f} of the time of sdpa"
                part.add(what, result, judge(error, tolerance))


def equality_nano(part: Part) -> None:
    """The shipped nano model, beside itself on the CPU."""

    def load(dtype: torch.dtype, device: str) -> nn.Module:
        return IDE3DForConditionalGeneration.from_pretrained(nano_model(), dtype=dtype).to(device)

    compare_attention(part, load, 4, "cpu")


def equality_7b(part: Part) -> None:
    """The shapes of 7 B, beside themselves in float32 on the same device."""
    config = eighth(part.is_small)

    def load(dtype: torch.dtype, device: str) -> nn.Module:
        return build(IDE3DForConditionalGeneration, config, device, dtype)

    compare_attention(part, load, 4 if part.is_small else 8, part.device)


def packed(part: Part) -> None:
    """A training step of packed chats: attention in parts, flex attention on a GPU, beside a dense mask."""
    sizes = {"a small model": (eighth(True), torch.float32, 4, 64)}
    if not part.is_small:
        sizes["7 B at an eighth of its layers"] = (eighth(False), torch.bfloat16, 16, 1024)
    for name, (config, dtype, num_frames, text_tokens) in sizes.items():
        model = build(IDE3DForConditionalGenerationWithGeometry, config, part.device, dtype).train()
        batch = to(part.device, pack(draw_batch(config, num_frames, text_tokens), chats=8))
        found = {}

        def step(model: nn.Module = model, batch: dict[str, Tensor] = batch) -> float:
            model.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            return float(loss.detach())

        for attention in ("sdpa", "shared_prefix"):
            with part.row(f"{name}, {attention}"):
                model.set_attn_implementation({"text_config": attention})
                loss = step()
                gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
                found[attention] = (loss, gradients, part.seconds(step, 3), part.peak(step))
        if len(found) == 2:
            (loss, gradients, seconds, memory), (other, others, time_parts, memory_parts) = found.values()
            norm = sum(float(value.float().norm()) ** 2 for value in gradients.values()) ** 0.5
            parts = (float((value.float() - others[key].float()).norm()) for key, value in gradients.items())
            error = max(sum(length**2 for length in parts) ** 0.5 / norm, abs(other / loss - 1))
            result = f"loss and gradients off by {error:.1e} of their norm, {time_parts / seconds:.2f} of the time"
            result += f" and {memory_parts / memory:.2f} of the peak" if memory else ""
            part.add(f"{name}, shared_prefix beside sdpa, {name_of(dtype)}", result, judge(error, TOLERANCES[dtype]))


def decode(part: Part) -> None:
    """Tokens of `generate` with a growing cache, beside a static one, whose step Transformers compiles on a GPU."""
    from torch._dynamo.utils import counters

    config, count = eighth(part.is_small), 8 if part.is_small else 64
    for dtype in (torch.float32, torch.bfloat16):
        model = build(IDE3DForConditionalGeneration, config, part.device, dtype).eval()
        batch = draw_batch(config, 4 if part.is_small else 8, text_tokens=64)
        del batch["labels"]
        inputs = to(part.device, batch)
        found = {}
        for cache in ("dynamic", "static"):
            with part.row(f"{cache} cache, {name_of(dtype)}"):

                def answer(tokens: int, cache: str = cache, model: nn.Module = model) -> Tensor:
                    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "cache_implementation": cache}
                    return model.generate(**inputs, **settings, do_sample=False)[:, -tokens:].cpu()  # noqa: B023

                counters.clear()
                tokens = answer(count)
                graphs = counters["stats"]["unique_graphs"]
                seconds = part.seconds(lambda: answer(count), 3) - part.seconds(lambda: answer(1), 3)  # noqa: B023
                found[cache] = tokens, seconds, graphs
        if len(found) == 2:
            (tokens, seconds, _), (others, fast, graphs) = found.values()
            same = int((tokens == others).cumprod(-1).sum())
            result = f"{same} of {count} tokens the same before the first that differs, "
            result += f"{fast / seconds:.2f} of the time of a token, {graphs} compiled graphs"
            # In bfloat16 rounding decides between words of random weights.
            verdict = "" if dtype != torch.float32 else "ok" if same == count else "failed: other tokens"
            part.add(f"static cache beside a dynamic one, {name_of(dtype)}", result, verdict)


class _Clock(TrainerCallback):
    """Times at which optimizer steps end."""

    def __init__(self, part: Part):
        self.part, self.ends = part, []

    def on_step_end(self, *args, **kwargs) -> None:
        self.part.wait()
        self.ends.append(time.perf_counter())


def step(part: Part, recipe: str) -> None:
    """Optimizer steps of a recipe by `IDE3DTrainer`, one batch each, in every process that there is."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if "lora" in recipe and importlib.util.find_spec("peft") is None:
        part.add(recipe, "", "not here: peft is not installed")
        return
    warm, counted = 2, 2 if part.is_small else 8
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "planned_config": write_eighth(folder, part.is_small),
            "planned_processes": processes,
            "planned_sharding": "none",
            "output_dir": folder,
            "max_steps": warm + counted,
            "gradient_accumulation_steps": 1,
            "dataloader_num_workers": 0,
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": part.device == "cpu",
            **({"ddp_backend": "nccl" if part.device == "cuda" else "gloo"} if processes > 1 else {}),
            **({"num_frames": 4, "validator": "light", "planned_teacher_size": 16} if part.is_small else {}),
        }
        flags = [text for name, value in words.items() for text in (f"--{name}", str(value))]
        arguments, data, args = read_recipe(str(RECIPES / f"{recipe}.yaml"), flags)
        planned = dry_run(arguments, data, args)
        config = read_config(arguments)
        validator = build_validator(arguments.validator, config, validator_changes(arguments, args.protocol))
        sizes = {"num_regions": 4, "native_size": (60, 80)} if part.is_small else {}
        torch.manual_seed(0)
        with torch.device(args.device):
            model = IDE3DForConditionalGenerationWithGeometry(config, validator, arguments.planned_teacher_size)
        batch = make_batch(
            config,
            num_frames=data.num_frames,
            text_tokens=arguments.planned_text_tokens,
            teacher_size=arguments.planned_teacher_size,
            **{"num_regions": NUM_REGIONS, "native_size": NATIVE_SIZE, **sizes},
        )
        batch["pixel_values_videos"] = torch.randn(batch["pixel_values_videos"].shape)
        clock = _Clock(part)
        trainer = IDE3DTrainer(
            adapt(model.to(getattr(torch, arguments.dtype)), arguments),
            args,
            train_dataset=[{}] * (warm + counted) * processes,
            data_collator=lambda samples: dict(batch),
            callbacks=[clock],
        )
        peak = part.peak(trainer.train)
    if int(os.environ.get("RANK", "0")):
        return
    seconds = statistics.median(end - start for start, end in pairwise(clock.ends[warm - 1 :]))
    speed = sum(planned.operations.values()) / seconds / 1e12
    result = f"{seconds:.3f} s a step, {speed:.3g} TFLOP/s a process by the plan's count"
    result += f", {planned.total_memory / 1024**3:.1f} GB planned" + (f", peak {peak:.1f} GB" if peak else "")
    part.add(f"{recipe}, {processes} process{'es' * (processes > 1)}, {data.num_frames} frames", result)


def gradients(part: Part) -> None:
    """One step over mixed samples in two processes, beside one process."""
    if part.device == "cuda" and torch.cuda.device_count() < 2:
        part.add("gradients in two processes", "", "not here: one GPU alone")
        return
    script, options = Path(__file__).parents[1] / "equal_gradients.py", ["--cuda"] * (part.device == "cuda")
    with tempfile.TemporaryDirectory() as folder:
        updates = []
        for processes in (1, 2):
            output = Path(folder, str(processes))
            output.mkdir()
            start_processes(script, processes, output, str(output), *options)
            updates.append(torch.load(output / "gradients.pt", map_location="cpu"))
    error = largest_difference(*updates)
    part.add("gradients in two processes beside one", f"off by {error:.1e} of the largest entry", judge(error, 1e-4))


def session(part: Part, is_7b: bool) -> None:
    """Questions of one scene in a session and from scratch, as `scene_cache.py` measures them."""
    sizes = (10, 2) if part.is_small else (66, 6)
    dtype = torch.bfloat16 if is_7b else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        config = write_eighth(folder, part.is_small) if is_7b else None
        found = scene_cache.measure(*sizes, part.device, dtype, config)
    result = (
        f"{found['speedup']:.1f} times from scratch, {found['seconds_first_question']:.3f} s to the first answer, "
    )
    result += f"{found['seconds_tenth_question']:.3f} s for the tenth, {found['same_tokens']} of "
    result += f"{found['sure_questions']} sure answers and logits to {found['largest_logit_difference']:.1e} the same"
    # Half precision rounds more than what is allowed.
    is_same = scene_cache.has_same_answers(found, part.device)
    verdict = "" if is_7b else "ok" if is_same else "failed: other answers"
    part.add(f"{found['questions']} questions of a scene, {name_of(dtype)}", result, verdict)


def tests(part: Part) -> None:
    """The tests marked gpu."""
    folder = Path(__file__).parents[1]
    # Other files may need packages that a bare machine lacks.
    files = [str(file) for file in sorted(folder.rglob("test_*.py")) if GPU_MARK.search(file.read_text("utf-8"))]
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}", *files]
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
        if not report.is_file():
            raise RuntimeError(f"pytest wrote no report: {(done.stdout + done.stderr)[-500:]}")
        for case in ElementTree.parse(report).iter("testcase"):
            verdict = "ok"
            for kind in ("failure", "error", "skipped"):
                for found in case.iter(kind):
                    reason = " ".join(found.get("message", "").split())[:200]
                    verdict = f"{'not here' if kind == 'skipped' else 'failed'}: {reason}"
            part.add(case.get("name"), "", verdict)


PARTS = {
    "tests": tests,
    "equality-nano": equality_nano,
    "equality-7b": equality_7b,
    "packed": packed,
    "decode": decode,
    "step": lambda part: step(part, "ide3d_7b"),
    "step-lora": lambda part: step(part, "ide3d_7b_lora"),
    "session": lambda part: session(part, is_7b=False),
    "session-7b": lambda part: session(part, is_7b=True),
    "gradients": gradients,
}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--output", type=Path, required=True, help="file that rows are added to")
    words = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.backends.cudnn.allow_tf32 = False  # as for products of matrices: float32 means float32
    PARTS[words.part](Part(words.device, words.small, words.output))
    leave_processes()


if __name__ == "__main__":
    main()
