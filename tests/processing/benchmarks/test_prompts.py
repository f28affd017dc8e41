"""The words of every prompt, and the tokens they become."""

import hashlib

import numpy as np
import pytest
import torch

from processing.benchmarks import TASKS, build_chat, build_prompt, load_task, prompt_digest
from processing.benchmarks.prompts import PROTOCOLS, SOURCE_TEMPLATES, STAGES, format_source_text, question_of
from trainer.nano.build import build_nano_processor

SAMPLES = {
    "scanrefer": {"question": "The Red chair, next to the TV."},
    "multi3drefer": {"question": "All Chairs"},
    "scan2cap": {"question": "", "input_box": [1.0, -0.254, 0.506, 1, 1, 1], "answers": ["a red chair.", "a chair."]},
    "scanqa": {"question": "What is on the desk?", "answers": ["lamp", "a lamp"]},
    "sqa3d": {"question": "I face the door. Can I sit?", "answers": ["yes"]},
    "vsibench": {"question": "How many chairs?", "answers": ["4"]},
    "vsibench choice": {"question": "Left?", "options": ["A. yes", "B. no"], "answers": ["B"]},
    "revsi": {"question": "How many chairs?", "answers": ["4"]},
    "revsi choice": {"question": "Left?", "options": ["A. yes", "B. no"], "answers": ["B"]},
}
INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the video "
    "and answer the following questions.\n"
)
IDENTIFY = "Identify the object according to the following description.\n"
MAYBE = "There may be no corresponding object, or there may be one or more objects."
WATCH = "Carefully watch the video and describe the object"
WORD = "Answer the question using a single word or phrase."
CHOICE = "Answer with the option's letter from the given choices directly."
VSI = "These are frames of a video.\n"

# Evaluation, protocol "paper". In training the instruction stands in front of all but VSI-Bench and ReVSI.
PAPER = {
    "scanrefer": IDENTIFY + "The red chair, next to the tv.",
    "multi3drefer": IDENTIFY + "All chairs\n" + MAYBE,
    "scan2cap": f" {WATCH} located at [1.00, -0.25, 0.51] <ground> in detail.",
    "scanqa": " What is on the desk? Answer the question simply.",
    "sqa3d": f" I face the door. Can I sit? {WORD}",
    "vsibench": VSI + "How many chairs?\nPlease answer the question using a single word or phrase.",
    "vsibench choice": VSI + "Left?\nOptions:\nA. yes\nB. no\n" + CHOICE,
    "revsi": VSI + "How many chairs?\nAnswer the question using a single integer or decimal number.",
    "revsi choice": VSI + "Left?\nOptions:\nA. yes\nB. no\n" + CHOICE,
}
VIDEO_ONLY = ("vsibench", "vsibench choice", "revsi", "revsi choice")
CLEAN = {
    "scanrefer": IDENTIFY + "The Red chair, next to the TV.",
    "multi3drefer": IDENTIFY + "All Chairs\n" + MAYBE,
    "scan2cap": f"{WATCH} <ground> in detail.",
    "scanqa": "What is on the desk? Answer the question simply.",
    "sqa3d": f"I face the door. Can I sit? {WORD}",
    **{name: PAPER[name] for name in VIDEO_ONLY},
}
ANSWERS = {
    "scanrefer": "<ground>",
    "multi3drefer": "<ground>",
    "scan2cap": "a red chair.",
    "scanqa": "lamp",
    "sqa3d": "yes",
    "vsibench": "4",
    "vsibench choice": "B",
    "revsi": "4",
    "revsi choice": "B",
}
CASES = [(name, protocol, stage) for name in SAMPLES for protocol in PROTOCOLS for stage in STAGES]
# sha256 of the token ids of the whole chat, by the tokenizer of these tests.
TOKEN_DIGESTS = {
    ("scanrefer", "clean", "train"): "0ea7b4e12880",
    ("scanrefer", "clean", "eval"): "cfeab3f2ca54",
    ("scanrefer", "paper", "train"): "5dcd9f7849eb",
    ("scanrefer", "paper", "eval"): "fb553d2cad65",
    ("multi3drefer", "clean", "train"): "0364a573f558",
    ("multi3drefer", "clean", "eval"): "737db28662b3",
    ("multi3drefer", "paper", "train"): "6cea992741bb",
    ("multi3drefer", "paper", "eval"): "30946b1bf7eb",
    ("scan2cap", "clean", "train"): "a996c61af231",
    ("scan2cap", "clean", "eval"): "7b910ba355c0",
    ("scan2cap", "paper", "train"): "405b3a2ab061",
    ("scan2cap", "paper", "eval"): "db9cb213c7e5",
    ("scanqa", "clean", "train"): "ef1f35693748",
    ("scanqa", "clean", "eval"): "15f572007140",
    ("scanqa", "paper", "train"): "6b3f0ccb411d",
    ("scanqa", "paper", "eval"): "f8c9aadb2cbb",
    ("sqa3d", "clean", "train"): "6c3e6ef051b1",
    ("sqa3d", "clean", "eval"): "013071d27cb2",
    ("sqa3d", "paper", "train"): "b4448cdb7ed0",
    ("sqa3d", "paper", "eval"): "8dc907aae60b",
    ("vsibench", "clean", "train"): "0d2a778d43c9",
    ("vsibench", "clean", "eval"): "2b78db9d0437",
    ("vsibench", "paper", "train"): "0d2a778d43c9",
    ("vsibench", "paper", "eval"): "2b78db9d0437",
    ("vsibench choice", "clean", "train"): "0fdcb61a402d",
    ("vsibench choice", "clean", "eval"): "626c865f7077",
    ("vsibench choice", "paper", "train"): "0fdcb61a402d",
    ("vsibench choice", "paper", "eval"): "626c865f7077",
    ("revsi", "clean", "train"): "aab6ab548da4",
    ("revsi", "clean", "eval"): "e91e6b774e22",
    ("revsi", "paper", "train"): "aab6ab548da4",
    ("revsi", "paper", "eval"): "e91e6b774e22",
    ("revsi choice", "clean", "train"): "0fdcb61a402d",
    ("revsi choice", "clean", "eval"): "626c865f7077",
    ("revsi choice", "paper", "train"): "0fdcb61a402d",
    ("revsi choice", "paper", "eval"): "626c865f7077",
}


def sample_of(name: str) -> dict:
    return {"id": "7", "options": [], "input_box": [], "answers": [], **SAMPLES[name]}


def expected_text(name: str, protocol: str, stage: str) -> str:
    if protocol == "clean":
        return CLEAN[name]
    instructed = stage == "train" and name not in VIDEO_ONLY
    return (INSTRUCTION if instructed else "") + PAPER[name]


@pytest.mark.parametrize(("name", "protocol", "stage"), CASES)
def test_words_of_a_prompt(name, protocol, stage):
    text = build_prompt(name.split()[0], sample_of(name), protocol=protocol, stage=stage)
    assert text == expected_text(name, protocol, stage)


@pytest.mark.parametrize(("name", "protocol", "stage"), CASES)
def test_tokens_of_a_prompt(name, protocol, stage, processor):
    """The chat becomes the tokens of the original's pieces: the turn, the video, a newline, the text, the answer."""
    chat = build_chat(name.split()[0], sample_of(name), protocol=protocol, stage=stage)
    text = processor.apply_chat_template(chat, add_generation_prompt=stage == "eval", tokenize=False)
    ids = processor.tokenizer(text)["input_ids"]
    pieces = ["<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", "<|im_start|>user\n", "<video>", "\n"]
    pieces += [expected_text(name, protocol, stage), "<|im_end|>\n", "<|im_start|>assistant\n"]
    pieces += [ANSWERS[name], "<|im_end|>\n"] if stage == "train" else []
    assert ids == [number for piece in pieces for number in processor.tokenizer(piece)["input_ids"]]
    assert hashlib.sha256(repr(ids).encode()).hexdigest()[:12] == TOKEN_DIGESTS[name, protocol, stage]


def test_pieces_stay_apart_in_a_tokenizer_with_words():
    """A tokenizer that joins letters does not join across the newline behind the video either."""
    texts = [expected_text(*case) for case in CASES]
    processor = build_nano_processor(texts, vocab_size=400)
    for name, protocol in {case[:2] for case in CASES}:
        chat = build_chat(name.split()[0], sample_of(name), protocol=protocol, stage="eval")
        whole = processor.tokenizer(processor.apply_chat_template(chat, tokenize=False))["input_ids"]
        behind = whole[whole.index(processor.video_token_id) + 1 :]
        text = processor.tokenizer(expected_text(name, protocol, "eval"))["input_ids"]
        assert behind[: len(text) + 1] == processor.tokenizer("\n")["input_ids"] + text


def test_missing_box():
    sample = {"id": "7", "question": "", "input_box": [], "options": []}
    paper = build_prompt("scan2cap", sample, protocol="paper")
    assert paper == f" {WATCH} located at [0.00, 0.00, 0.00] <ground> in detail."
    with pytest.raises(ValueError, match="Sample 7 has no box"):
        build_prompt("scan2cap", sample)


@pytest.mark.parametrize("task", SOURCE_TEMPLATES)
def test_paper_prompt_follows_from_the_words_of_the_file(task, rooms):
    """What the original makes of a user turn at evaluation: the turn without its `<image>`."""
    for sample in load_task(task, TASKS[task].eval_split, rooms):
        source = sample["source_text"]
        assert source.count("<image>") == 1
        expected = source.replace("<image>", "").replace("] in detail", "] <ground> in detail")
        assert build_prompt(task, sample, protocol="paper") == expected


@pytest.mark.parametrize(
    "question", ["What? Answer the question simply.", "{point} {0}", "a\nb", " two  blanks ", "ü"]
)
def test_question_survives_its_template(question):
    for task in ("scanqa", "sqa3d"):
        assert question_of(task, format_source_text(task, question=question)) == question


def test_words_of_other_models_are_refused():
    with pytest.raises(ValueError, match="another model"):
        question_of("scan2cap", "<image> Given an object located at <coord> , describe the object in detail.")
    with pytest.raises(ValueError, match="another model"):
        question_of("scanqa", "<image> Answer the question simply.")


def test_digest_changes_with_the_words():
    paper = {stage: prompt_digest("scanqa", protocol="paper", stage=stage) for stage in STAGES}
    assert len(set(paper.values())) == 2
    assert prompt_digest("scanqa", stage="train") == prompt_digest("scanqa", stage="eval") not in paper.values()
    tasks = [name for name, task in TASKS.items() if task.has_prompt]
    assert len({prompt_digest(task, protocol=protocol) for task in tasks for protocol in PROTOCOLS}) == 12


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("nr3d", {}, "no prompt"),
        ("scanqa", {"protocol": "official"}, "`protocol` must be one of"),
        ("scanqa", {"stage": "val"}, "`stage` must be one of"),
        ("scan", {}, "`task` must be one of"),
    ],
)
def test_unknown_names_are_refused(task, options, message):
    with pytest.raises(ValueError, match=message):
        build_prompt(task, sample_of("scanqa"), **options)


@pytest.mark.parametrize("empty", [None, [], (), np.zeros(0), torch.zeros(0)], ids=str)
def test_no_box_is_none_in_every_form(empty):
    sample = {**SAMPLES["scan2cap"], "input_box": empty}
    expected = build_prompt("scan2cap", {**sample, "input_box": []}, protocol="paper")
    assert build_prompt("scan2cap", sample, protocol="paper") == expected
