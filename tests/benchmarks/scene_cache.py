"""What the questions of one scene cost in a `SceneSession`, beside the other ways of asking them.

    python tests/benchmarks/scene_cache.py --json [--from_scratch 6] [--questions 66] [--device cuda]

One fixed small model with random weights, compute-bound on a CPU: 8 frames of 378 px, 1,680 visual tokens, and 66
questions of one scene with 32 tokens each. Asking takes about as large a part of the work as in the full model, where
66 such questions cost a third of what their scene costs. All figures are the processor's time of one thread, so that
what else the machine does does not count. With `--device cuda` time is the clock's, and memory the device's. The arms:

- from scratch: tower, prompt and answer for each question, the pixels ready; with `--from_scratch N` the mean of the
  first N questions stands for all.
- batched without a cache: several questions in one `generate`, each with its own copy of the video.
- one by one behind the cached prefix: what the prefix cache of a serving engine gives.
- the session: scene once, all questions together; its pixels, measured apart, are left out.
- a session whose tower computes in bfloat16 (`vision_dtype`): its gain, and how many of its answers are the same.
- decoding and preprocessing of the video file: paid for each question, or once.
"""

import argparse
import json
import logging
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from trainer.nano.build import build_nano_processor
from trainer.session import SceneSession

VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "image_size": 378,
    "patch_size": 14,
    "vision_use_head": False,
}
TEXT = {
    "model_type": "qwen2",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.1,  # wide enough that the next token depends on picture and question
}
NUM_FRAMES, NUM_QUESTIONS, NEW_TOKENS = 8, 66, 8
VIDEO_FRAMES, VIDEO_SIZE = 240, (480, 640)  # of the file that is decoded
BATCH = 3  # questions of one `generate` without a cache
SURE = 1e-3  # below this margin between the two best tokens rounding may decide
COLOURS = ("red", "blue", "green", "white", "black", "brown")
THINGS = ("chair", "table", "lamp", "sofa", "shelf", "bed", "door", "window", "monitor", "plant")
PLACES = ("beside", "behind", "in front of", "to the left of", "to the right of", "under")


def make_questions(count: int) -> list[str]:
    """Different questions of about 30 tokens, chat marks included."""
    draw = random.Random(0)
    questions: dict[str, None] = {}
    while len(questions) < count:
        what, other = draw.sample(THINGS, 2)
        colour, place = draw.choice(COLOURS), draw.choice(PLACES)
        start = draw.choice((f"How many {what}s are", f"What colour is the {what}", f"Is there a {what}"))
        ending = "Answer the question using a single word or phrase."
        questions[f"I stand at the {draw.choice(THINGS)}. {start} {place} the {colour} {other}? {ending}"] = None
    return list(questions)


def build(num_questions: int, config_file: str | None = None) -> tuple:
    """Model, processor, frames and questions; the model is the fixed one or has the sizes of a config.json."""
    questions = make_questions(num_questions)
    processor = build_nano_processor(
        questions, image_size=378, patch_size=14, spatial_pool_stride=2, num_frames=NUM_FRAMES
    )
    ids = {f"{name}_token_id": getattr(processor, f"{name}_token_id") for name in ("image", "video", "ground")}
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    vision, text = VISION, TEXT
    if config_file is not None:
        config = json.loads(Path(config_file).read_text(encoding="utf-8"))
        text = config["text_config"] | {"initializer_range": TEXT["initializer_range"]}
        # The processor's pixels.
        vision = config["vision_config"] | {name: VISION[name] for name in ("image_size", "patch_size")}
    config = IDE3DConfig(vision_config=vision, text_config={**text, **vocabulary}, **ids)
    torch.manual_seed(0)
    model = IDE3DForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 378, 378, 3), dtype=np.uint8)
    return model, processor, frames, questions


def write_video(path: Path) -> None:
    """Write a file of moving stripes."""
    rows, cols = np.mgrid[: VIDEO_SIZE[0], : VIDEO_SIZE[1]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=24)
        stream.height, stream.width = VIDEO_SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(VIDEO_FRAMES):
            picture = np.stack([rows + index, cols + 2 * index, rows + cols - index], -1) % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8))))
        container.mux(stream.encode())


def ask_from_scratch(
    model, processor, pixels: torch.Tensor, questions: list[str]
) -> list[tuple[list[int], torch.Tensor]]:
    """Vision tower, whole prompts and answers in one `generate`; the pixels are ready, as in the original."""
    texts = []
    for question in questions:
        chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        texts.append(text.replace("<video>", "<video>" * (pixels.shape[1] * processor.tokens_per_frame)))
    inputs = processor.tokenizer(texts, return_tensors="pt", padding=True).to(model.device)
    output = model.generate(
        **inputs,
        pixel_values_videos=pixels.repeat(len(questions), 1, 1, 1, 1),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    logits = torch.stack(output.logits, 1).float().cpu()
    return list(zip(tokens, logits, strict=True))


def timed(run: Callable, device: str = "cpu") -> tuple[float, object]:
    """The processor's seconds, or those of the clock on another device, and the result."""
    if device == "cpu":
        start = time.process_time()
        result = run()
        return time.process_time() - start, result
    torch.accelerator.synchronize()
    start = time.perf_counter()
    result = run()
    torch.accelerator.synchronize()
    return time.perf_counter() - start, result


def machine_speed(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a large matrix product and bytes/s of reading memory, the best of several runs."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    flops = max(2 * size**3 / timed(lambda: a @ b, device)[0] for _ in range(20))
    big = torch.randn(16 * 1024**2 if device == "cpu" else 1024**3, device=device)
    return flops, max(big.nbytes / timed(big.sum, device)[0] for _ in range(5))


def lower_bound(model, prefix: int, lengths: list[int], answers: list[list[int]]) -> dict:
    """What the questions need at least: FLOPs of their own tokens, and the language model's weights once a step."""
    text = model.config.text_config
    linear = sum(p.numel() for name, p in model.model.language_model.named_parameters() if p.ndim == 2) - (
        model.get_input_embeddings().weight.numel()
    )
    tokens, keys = 0, 0
    for length, answer in zip(lengths, answers, strict=True):
        own = length + len(answer) - 1
        tokens += own
        keys += own * prefix + own * (own + 1) // 2
    head = model.lm_head.weight.numel()
    flops = 2 * linear * tokens + 4 * text.num_hidden_layers * text.hidden_size * keys
    flops += 2 * head * sum(map(len, answers))
    size = model.lm_head.weight.element_size()
    return {"flops": flops, "bytes": size * (linear + head) * max(map(len, answers))}


def peak_mb(device: str) -> float:
    """Peak of the process so far, or of the tensors on the device."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(answers: list, expected: list) -> dict:
    """How far the session's answers are those from scratch."""
    compared, same, difference = 0, 0, 0.0
    for answer, (tokens, logits) in zip(answers, expected, strict=True):
        tokens = tokens[: len(answer.tokens)]
        count = next((i for i, margin in enumerate(answer.margins) if margin <= SURE), len(answer.tokens))
        compared += count == len(answer.tokens)
        same += count == len(answer.tokens) and answer.tokens == tokens
        parted = (i + 1 for i, (a, b) in enumerate(zip(answer.tokens, tokens, strict=False)) if a != b)
        rows = next(parted, len(tokens))
        difference = max(difference, float((answer.logits[:rows].float().cpu() - logits[:rows]).abs().max()))
    return {"sure_questions": compared, "same_tokens": same, "largest_logit_difference": difference}


def has_same_answers(result: dict, device: str) -> bool:
    """Whether the session answered in float32 as it is answered from scratch."""
    allowed = 1e-4 if device == "cpu" else 1e-3  # a GPU adds in another order
    return result["same_tokens"] == result["sure_questions"] and result["largest_logit_difference"] <= allowed


def measure(
    num_questions: int,
    from_scratch: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    config_file: str | None = None,
) -> dict:
    """All ways in one process."""
    model, processor, frames, questions = build(num_questions, config_file)
    model.to(device, dtype)
    before, clock = peak_mb(device), partial(timed, device=device)
    pixels = processor.video_processor(videos=[frames], return_tensors="pt")["pixel_values_videos"].to(device)
    # What a first call sets up is paid by none.
    SceneSession(model, processor, frames[:1]).ask(questions[:2], max_new_tokens=2)
    ask_from_scratch(model, processor, pixels[:, :1], questions[:1])
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder, "video.mp4"))
        seconds_opening, _ = clock(
            lambda: processor.video_processor(videos=[str(Path(folder, "video.mp4"))], return_tensors="pt")
        )
    settings = {"max_new_tokens": NEW_TOKENS, "output_logits": True}
    # A session takes frames and makes its own pixels, which the other arms have: what that takes is left out.
    seconds_pixels, _ = clock(lambda: processor.video_processor(videos=[frames], return_tensors="pt"))
    seconds_scene, session = clock(lambda: SceneSession(model, processor, frames))
    seconds_scene -= seconds_pixels
    seconds_questions, answers = clock(lambda: session.answer(questions, **settings))
    session_peak = peak_mb(device) - before
    seconds_rounded, rounded = clock(lambda: SceneSession(model, processor, frames, vision_dtype=torch.bfloat16))
    seconds_rounded += seconds_questions - seconds_pixels
    of_rounded = rounded.answer(questions, **settings)
    del rounded
    each = [clock(lambda: session.answer([question], **settings))[0] for question in questions]  # noqa: B023
    scratch, expected = 0.0, []
    for question in tqdm(questions[:from_scratch], desc="From scratch", unit="question", disable=None):
        seconds, alone = clock(lambda: ask_from_scratch(model, processor, pixels, [question]))  # noqa: B023
        scratch += seconds / min(from_scratch, len(questions))
        expected += alone
    seconds_batch, _ = clock(lambda: ask_from_scratch(model, processor, pixels, questions[:BATCH]))
    lengths = [len(session._tokenize(question)) for question in questions]
    bound = lower_bound(model, session.prefix_ids.shape[1], lengths, [answer.tokens for answer in answers])
    peak = peak_mb(device) - before
    flops, bandwidth = machine_speed(device, dtype)
    least = bound["flops"] / flops + bound["bytes"] / bandwidth
    count, total = len(questions), seconds_scene + seconds_questions
    arms = {
        "from_scratch": scratch * count,
        "batched_without_cache": seconds_batch / BATCH * count,
        "cached_prefix_one_by_one": seconds_scene + sum(each),
        "session": total,
    }
    return {
        "speedup": arms["from_scratch"] / total,
        "seconds": arms,
        "speedups": {name: arms["from_scratch"] / seconds for name, seconds in arms.items()},
        # A file is opened once by a session, and for each question by an engine that keeps no pixels.
        "speedup_with_decoding": (arms["from_scratch"] + count * seconds_opening) / (total + seconds_opening),
        "speedup_with_bfloat16_tower": arms["from_scratch"] / seconds_rounded,
        "same_with_bfloat16_tower": sum(a.tokens == b.tokens for a, b in zip(answers, of_rounded, strict=True)),
        "smallest_margins_that_changed": sorted(
            min(a.margins) for a, b in zip(answers, of_rounded, strict=True) if a.tokens != b.tokens
        ),
        "seconds_opening": seconds_opening,
        "seconds_pixels": seconds_pixels,
        "seconds_scene": seconds_scene,
        "seconds_questions": seconds_questions,
        "seconds_first_question": seconds_opening + seconds_scene + each[0],
        "seconds_tenth_question": each[9],
        "peak_mb_of_session": session_peak,
        "peak_mb": peak,
        "questions": count,
        "from_scratch": len(expected),
        **compare(answers[: len(expected)], expected),
        "tokens_per_question": sum(lengths) / count,
        "tokens_per_answer": sum(len(answer.tokens) for answer in answers) / count,
        "different_answers": len({tuple(answer.tokens) for answer in answers}),
        "suffix_flops": bound["flops"],
        "weight_bytes_read": bound["bytes"],
        "machine_flops_per_second": flops,
        "machine_bytes_per_second": bandwidth,
        "seconds_lower_bound": least,
        "times_lower_bound": seconds_questions / least,
        "visual_tokens": NUM_FRAMES * processor.tokens_per_frame,
        "parameters": model.num_parameters(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if device != "cpu" else platform.processor() or platform.machine(),
    }


def main() -> None:
    """Measure, show, and fail where the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--questions", type=int, default=NUM_QUESTIONS)
    parser.add_argument("--from_scratch", type=int, default=NUM_QUESTIONS, help="questions asked from scratch too")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(args.threads)
    result = measure(args.questions, args.from_scratch, args.device)
    lines = [json.dumps(result)] if args.json else [f"{key:36} {value}" for key, value in result.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    if not has_same_answers(result, args.device):
        sys.exit("The two ways do not give the same answers.")


if __name__ == "__main__":
    main()
