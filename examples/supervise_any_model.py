"""Supervise a model that is not ours: Qwen2.5-VL learns about depth beside its answers, and is saved as itself.

    python examples/supervise_any_model.py
    python examples/supervise_any_model.py --model path/to/Qwen2.5-VL --validator paper --output outputs/supervised

Without `--model` it is a tiny random one that trains for seconds on a CPU. The data are procedural rooms; put your own
posed RGB-D video into `RoomCollator`.
"""

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoProcessor,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    TrainingArguments,
    set_seed,
)

from processing.rooms import load_rooms
from trainer import GeometrySupervision
from trainer.nano.build import build_nano_processor
from trainer.supervision import SupervisedTrainer

logger = logging.getLogger("supervise")

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{{ '" + VIDEO + "' if part.type == 'video' else part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class RoomCollator:
    """Questions about rooms as the model's processor gives them, with depth and cameras."""

    def __init__(self, processor: ProcessorMixin):
        self.processor = processor

    def __call__(self, rooms: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate."""
        asked = [next(entry for entry in room["questions"] if entry["reference"] == "word") for room in rooms]
        texts = [self._render(entry["question"]) + entry["answer"] + "<|im_end|>" for entry in asked]
        videos = [np.stack([np.asarray(frame) for frame in room["frames"]]) for room in rooms]
        batch = self.processor(
            text=texts, videos=videos, do_sample_frames=False, padding=True, padding_side="right", return_tensors="pt"
        )
        batch["labels"] = torch.full_like(batch["input_ids"], -100)
        for row, entry in enumerate(asked):
            length = int(batch["attention_mask"][row].sum())
            start = length - len(self.processor.tokenizer(entry["answer"] + "<|im_end|>")["input_ids"])
            batch["labels"][row, start:length] = batch["input_ids"][row, start:length]
        # For the frames as the processor got them, and the pixels of depth.
        batch["depth"] = torch.tensor(np.stack([[np.asarray(depth) for depth in room["depth"]] for room in rooms]))
        batch["intrinsics"] = torch.tensor([room["intrinsics"] for room in rooms])
        batch["camera_to_world"] = torch.tensor([room["camera_to_world"] for room in rooms])
        return dict(batch)

    def _render(self, question: str) -> str:
        content = [{"type": "video"}, {"type": "text", "text": question}]
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def list_texts(rooms: Iterable[dict[str, Any]]) -> list[str]:
    """Return questions and answers of rooms."""
    return [text for room in rooms for entry in room["questions"] for text in (entry["question"], entry["answer"])]


def build_tiny(texts: list[str]) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Build a random model of two narrow layers, and a processor that knows `texts`."""
    tokenizer = build_nano_processor(texts).tokenizer
    tokenizer.add_special_tokens(
        {"extra_special_tokens": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]}
    )
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(),
        tokenizer,
        Qwen2VLVideoProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, cap_pixels_per_frame=False),
        chat_template=CHAT,
    )
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 48,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]},
            "bos_token_id": tokenizer.pad_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def main(words: list[str] | None = None) -> None:
    """Train with supervision, detach it, save the model."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="Qwen2.5-VL checkpoint; default: a tiny random model")
    parser.add_argument("--validator", choices=("light", "paper"), default="light", help="size of the depth decoder")
    parser.add_argument("--rooms", type=int, default=8, help="rooms to train on")
    parser.add_argument("--steps", type=int, default=20, help="steps of the training")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="1e-5 for a model that is trained already")
    parser.add_argument("--output", type=Path, default=Path("outputs/supervised"), help="folder of the saved model")
    options = parser.parse_args(words)
    set_seed(0)
    rooms = list(load_rooms("train", options.rooms, image_size=112, num_frames=4))
    if options.model is None:
        model, processor = build_tiny(list_texts(rooms))
    else:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(options.model)
        processor = AutoProcessor.from_pretrained(options.model)
    arguments = TrainingArguments(
        output_dir=str(options.output / "run"),
        max_steps=options.steps,
        per_device_train_batch_size=2,
        learning_rate=options.learning_rate,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=options.model is None,
    )
    model.to(arguments.device)

    supervision = GeometrySupervision.attach(model, validator=options.validator)
    trainer = SupervisedTrainer(
        model, arguments, train_dataset=rooms, data_collator=RoomCollator(processor), supervision=supervision
    )
    trainer.train()
    supervision.detach()

    model.save_pretrained(options.output)
    processor.save_pretrained(options.output)
    logger.info("Saved %s without a trace of the supervision to %s", type(model).__name__, options.output)


if __name__ == "__main__":
    main()
