"""Questions a second of a `SceneSession`, beside asking each question from scratch as the original does.

    python tests/benchmarks/scene_cache.py --json

One fixed small model with random weights, compute-bound on a CPU: 8 frames of 378 px, 1,680 visual tokens, and 66
questions of one scene with 32 tokens each. Asking takes about as large a part of the work as in the full model, where
66 such questions cost a third of what their scene costs. Nearly all of the three minutes on one core go into the runs
from scratch; the session runs between them, so that both meet the same load of the machine.
"""

import argparse
import json
import logging
import platform
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
REPEATS = 3  # of the session
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


def build() -> tuple:
    """Model, processor, frames and questions."""
    questions = make_questions(NUM_QUESTIONS)
    processor = build_nano_processor(
        questions, image_size=378, patch_size=14, spatial_pool_stride=2, num_frames=NUM_FRAMES
    )
    ids = {f"{name}_token_id": getattr(processor, f"{name}_token_id") for name in ("image", "video", "ground")}
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    config = IDE3DConfig(vision_config=VISION, text_config={**TEXT, **vocabulary}, **ids)
    torch.manual_seed(0)
    model = IDE3DForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 378, 378, 3), dtype=np.uint8)
    return model, processor, frames, questions


def ask_from_scratch(model, processor, pixels: torch.Tensor, question: str) -> tuple[list[int], torch.Tensor]:
    """Vision tower, whole prompt and answer of one question; the pixels are ready, as in the original."""
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    text = text.replace("<video>", "<video>" * (pixels.shape[1] * processor.tokens_per_frame))
    inputs = processor.tokenizer(text, return_tensors="pt")
    output = model.generate(
        **inputs,
        pixel_values_videos=pixels,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens, torch.cat(output.logits).float()


def timed(run: Callable) -> tuple[float, object]:
    """Seconds and result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def machine_speed() -> tuple[float, float]:
    """FLOP/s of a large matrix product and bytes/s of reading memory, the best of several runs."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    flops = max(2 * 1024**3 / timed(lambda: a @ b)[0] for _ in range(20))
    big = torch.randn(16 * 1024**2)
    return flops, max(big.nbytes / timed(big.sum)[0] for _ in range(5))


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
    return {"flops": flops, "bytes": 4 * (linear + head) * max(map(len, answers))}


def measure() -> dict:
    """Both ways in one process, and how far they agree."""
    model, processor, frames, questions = build()
    pixels = processor.video_processor(videos=[frames], return_tensors="pt")["pixel_values_videos"]
    # What a first call sets up is paid by neither.
    SceneSession(model, processor, frames[:1]).ask(questions[:2], max_new_tokens=2)
    ask_from_scratch(model, processor, pixels[:, :1], questions[0])

    scene_seconds = question_seconds = scratch_seconds = 0.0
    expected = []
    for index, question in enumerate(tqdm(questions, desc="From scratch", unit="question", disable=None)):
        if index % (NUM_QUESTIONS // REPEATS) == 0:
            seconds, session = timed(lambda: SceneSession(model, processor, frames))
            scene_seconds += seconds / REPEATS
            settings = {"max_new_tokens": NEW_TOKENS, "output_logits": True}
            seconds, answers = timed(lambda: session.answer(questions, **settings))  # noqa: B023
            question_seconds += seconds / REPEATS
        seconds, alone = timed(lambda: ask_from_scratch(model, processor, pixels, question))  # noqa: B023
        scratch_seconds += seconds
        expected.append(alone)
    compared, same, difference = 0, 0, 0.0
    for answer, (tokens, logits) in zip(answers, expected, strict=True):
        count = next((i for i, margin in enumerate(answer.margins) if margin <= SURE), len(answer.tokens))
        compared += count == len(answer.tokens)
        same += count == len(answer.tokens) and answer.tokens == tokens
        parted = (i + 1 for i, (a, b) in enumerate(zip(answer.tokens, tokens, strict=False)) if a != b)
        rows = next(parted, len(tokens))
        difference = max(difference, float((answer.logits[:rows] - logits[:rows]).abs().max()))
    lengths = [len(session._tokenize(question)) for question in questions]
    bound = lower_bound(model, session.prefix_ids.shape[1], lengths, [answer.tokens for answer in answers])
    flops, bandwidth = machine_speed()
    least = bound["flops"] / flops + bound["bytes"] / bandwidth
    total = scene_seconds + question_seconds
    return {
        "speedup": scratch_seconds / total,
        "questions_per_second": NUM_QUESTIONS / total,
        "questions_per_second_from_scratch": NUM_QUESTIONS / scratch_seconds,
        "seconds_scene": scene_seconds,
        "seconds_questions": question_seconds,
        "seconds_from_scratch": scratch_seconds,
        "questions": NUM_QUESTIONS,
        "sure_questions": compared,
        "same_tokens": same,
        "largest_logit_difference": difference,
        "tokens_per_question": sum(lengths) / len(lengths),
        "tokens_per_answer": sum(len(answer.tokens) for answer in answers) / len(answers),
        "different_answers": len({tuple(answer.tokens) for answer in answers}),
        "suffix_flops": bound["flops"],
        "weight_bytes_read": bound["bytes"],
        "machine_flops_per_second": flops,
        "machine_bytes_per_second": bandwidth,
        "seconds_lower_bound": least,
        "times_lower_bound": question_seconds / least,
        "visual_tokens": NUM_FRAMES * processor.tokens_per_frame,
        "parameters": model.num_parameters(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    """Measure, show, and fail where the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(args.threads)
    result = measure()
    lines = [json.dumps(result)] if args.json else [f"{key:36} {value}" for key, value in result.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    if result["same_tokens"] < result["sure_questions"] or result["largest_logit_difference"] > 1e-4:
        sys.exit("The two ways do not give the same answers.")


if __name__ == "__main__":
    main()
