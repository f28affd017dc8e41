"""One rule for chats at every door: the processor, a question of a session and the collator."""

import pytest
import torch
from training_samples import build_collator, make_sample

from processing.chat_rules_ide3d import check_chat, list_prompts
from trainer.session.questions import render_question

USER = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where?"}]}
SAYS = {"role": "assistant", "content": "There."}

BAD_CHATS = {
    "None": (None, "a list of messages with role and content, got None"),
    "a number": (5, "a list of messages with role and content, got 5"),
    "one message": (USER, "a list of messages with role and content, got {"),
    "a message of text": ([USER, "There."], "Message 1 of .* is no message"),
    "a message of None": ([USER, None], "Message 1 of .* is no message"),
    "a message among chats": ([[USER, SAYS], SAYS], "chat 1 to be a list of messages"),
    "an empty chat among chats": ([[USER, SAYS], []], "chat 1 to be a list of messages.* got \\[\\]"),
    "no role": ([USER, {"content": "x"}], "Message 1 of .* needs a role"),
    "a misspelt role": ([USER, {"rol": "assistant", "content": "x"}], "Message 1 .* needs a role.*'rol'"),
    "a role of None": ([USER, {**SAYS, "role": None}], "Message 1 .* needs a role"),
    "a role of a number": ([USER, {**SAYS, "role": 5}], "Message 1 .* needs a role"),
    "other keys": ([{"from": "human", "value": "Hi"}], "Message 0 .* needs a role.*'from'"),
    "an unknown role": ([USER, {**SAYS, "role": "asistant"}], "system, user or assistant, got asistant"),
    "no content": ([USER, {"role": "assistant"}], "Message 1 .* needs content.* got None"),
    "content of None": ([USER, {**SAYS, "content": None}], "Message 1 .* needs content.* got None"),
    "content of a number": ([USER, {**SAYS, "content": 5}], "Message 1 .* needs content.* got 5"),
    "content of one part": ([USER, {**SAYS, "content": {"type": "text", "text": "x"}}], "Message 1 .* needs content"),
    "no parts": ([USER, {**SAYS, "content": []}], r"Message 1 .* needs content.* got \[\]"),
    "a part of text": ([USER, {**SAYS, "content": ["x"]}], "Message 1 .*: part 0 needs a type.* got 'x'"),
    "a part of a number": ([USER, {**SAYS, "content": [5]}], "part 0 needs a type.* got 5"),
    "a part without type": ([USER, {**SAYS, "content": [{"text": "x"}]}], "part 0 needs a type"),
    "a part of no type": ([USER, {**SAYS, "content": [{"type": None}]}], "part 0 needs a type"),
    "a part of another type": ([USER, {**SAYS, "content": [{"type": "smell"}]}], "video, image or text, got smell"),
    "a part without text": ([USER, {**SAYS, "content": [{"type": "text"}]}], "part 0 needs its words"),
    "text of None": ([USER, {**SAYS, "content": [{"type": "text", "text": None}]}], "part 0 needs its words"),
    "text of a number": ([USER, {**SAYS, "content": [{"type": "text", "text": 5}]}], "part 0 needs its words"),
    "a misspelt content": ([USER, {"role": "assistant", "contents": "x"}], "a role and content, got contents"),
}


@pytest.fixture(scope="module")
def collate():
    collator = build_collator()
    return lambda chat: collator([make_sample(2, messages=chat, scene_id="attic")])


@pytest.mark.parametrize(("chat", "message"), BAD_CHATS.values(), ids=BAD_CHATS)
def test_what_is_no_chat_is_refused_at_every_door(processor, frames, collate, chat, message):
    with pytest.raises(ValueError, match=message):
        processor.apply_chat_template(chat)
    with pytest.raises(ValueError, match=message):
        processor.apply_chat_template(chat, tokenize=True, return_dict=True)
    with pytest.raises(ValueError, match=message):
        render_question(processor, chat)
    if chat is not None:  # A sample without messages has a message of its own.
        with pytest.raises(ValueError, match=f"Sample 'attic': .*{message}"):
            collate(chat)


@pytest.mark.parametrize(
    "chat",
    [
        [USER, SAYS],
        (USER, SAYS),
        [{**USER, "content": tuple(USER["content"])}, SAYS],
        [{"role": "system", "content": ""}, USER, SAYS],
        [{**USER, "name": None}, {**SAYS, "tool_calls": None}],
        [
            {**USER, "content": [{"type": "video", "text": None}, {"type": "text", "text": "Where?", "video": None}]},
            SAYS,
        ],
    ],
    ids=["list", "tuple", "tuple of parts", "empty system prompt", "columns of None", "structs of datasets"],
)
def test_chats_that_are_right_pass_every_door(processor, collate, chat):
    check_chat(chat)
    assert "Where?" in processor.apply_chat_template(chat)
    assert "There." in render_question(processor, chat)
    assert (collate(chat)["labels"] >= 0).any()


def test_templates_of_the_caller_may_take_messages_without_content(processor):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "measure"}]}
    template = "{% for m in messages %}{{ m['role'] }} {% endfor %}"
    assert processor.apply_chat_template([USER, call], template) == "user assistant "


def test_sampling_of_a_tuple_of_parts_is_obeyed(processor, frames):
    chat = [{"role": "user", "content": ({"type": "video", "video": frames(4), "num_frames": 2},)}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["pixel_values_videos"].shape[1] == 2


@pytest.mark.parametrize("text", [5, 0.5, b"x", {"a": "b"}, [5], ["a", None], [["a", "b"]]])
def test_prompts_are_texts(processor, text):
    with pytest.raises(TypeError, match="`text` must be a string or a list of strings, got"):
        processor(text=text)


def test_prompts_of_any_list_are_taken():
    assert list_prompts("a") == ["a"] and list_prompts(("a", "b")) == ["a", "b"]
    assert list_prompts(word for word in "ab") == ["a", "b"]
    with pytest.raises(ValueError, match="got an empty list"):
        list_prompts([])


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"patch_size": "14"}, TypeError, "patch_size must be an int, got '14'"),
        ({"patch_size": True}, TypeError, "patch_size must be an int, got True"),
        ({"spatial_pool_stride": 1.5}, TypeError, "spatial_pool_stride must be an int, got 1.5"),
        ({"image_size": 10**9}, ValueError, "image_size must be at most"),
        ({"spatial_pool_stride": 28}, ValueError, "at most the 5 patches"),
        ({"image_token": 5}, TypeError, "image_token must be a text"),
        ({"image_token": "<video>"}, ValueError, "image_token, video_token, ground_token must differ"),
        ({"chat_template": 5}, TypeError, "chat_template must be a Jinja text, got 5"),
        ({"tokenizer": 5}, TypeError, "tokenizer.*Given: .*tokenizer=5"),
    ],
)
def test_arguments_of_the_constructor(processor, fields, error, message):
    given = {key: getattr(processor, key) for key in ("image_processor", "tokenizer", "video_processor")}
    with pytest.raises(error, match=message):
        type(processor)(**{**given, "image_size": 70, **fields})


@pytest.mark.parametrize(
    ("options", "error"),
    [({"return_tensors": "xx"}, ValueError), ({"do_rescale": "no"}, TypeError), ({"resample": 99}, ValueError)],
)
def test_errors_of_libraries_name_what_was_given(processor, frames, options, error):
    (name,) = options
    with pytest.raises(error, match=f"Given: .*{name}="):
        processor(text="<video>", videos=frames(2), **options)
    with pytest.raises(error, match=f"Given: .*{name}="):
        processor.video_processor(frames(2), **options)


def test_a_number_that_the_tokenizer_cannot_hold_is_named(processor):
    with pytest.raises(ValueError, match="OverflowError.* Given: .*max_length=-1"):
        processor(text="Hi", padding="max_length", max_length=-1, truncation=True)


def test_errors_of_the_memory_and_of_files_stay_what_they_are(processor, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(processor.tokenizer.__class__, "__call__", fail)
    with pytest.raises(torch.OutOfMemoryError, match="^no memory$"):
        processor(text="Hi")
    with pytest.raises(FileNotFoundError, match="No image at nowhere.png"):
        processor(text="<image>", images="nowhere.png")
