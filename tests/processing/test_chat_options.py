"""What a chat carries is obeyed or refused by name: options of parts, tools, documents, roles, arguments of a call."""

import jinja2
import pytest
import torch

QUESTION = {"type": "text", "text": "How far is it?"}
TOOL = {"name": "measure", "description": "Measures.", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": TOOL}]
CALL = {"type": "function", "function": {"name": "measure", "arguments": {}}}
OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}


def ask(processor, *parts, **options):
    chat = [{"role": "user", "content": [*parts, QUESTION]}]
    return processor.apply_chat_template(chat, **{**OPTIONS, **options})


def test_a_video_part_says_how_it_is_sampled(processor, write_video):
    """The k-th of 100 frames, ten a second, has the brightness 2 k."""
    path = str(write_video(100, step=2))
    for rule, numbers in (({"num_frames": 3}, [0, 49, 99]), ({"fps": 0.2}, [0, 50])):
        pixels = ask(processor, {"type": "video", "path": path, **rule})["pixel_values_videos"]
        torch.testing.assert_close(
            (pixels[0].mean((1, 2, 3)) + 1) * 127.5 / 2, torch.tensor(numbers) * 1.0, atol=1.5, rtol=0
        )
    parts = [{"type": "video", "video": path, "num_frames": 2}] * 2
    assert ask(processor, *parts)["pixel_values_videos"].shape[:2] == (2, 2)


def test_videos_of_a_call_have_one_rule(processor, frames):
    parts = [{"type": "video", "video": frames(4), "num_frames": 2}, {"type": "video", "video": frames(4)}]
    with pytest.raises(ValueError, match=r"one num_frames or fps for all videos .*\[\{'num_frames': 2\}, \{\}\]"):
        ask(processor, *parts)
    with pytest.raises(TypeError, match="num_frames"):
        ask(processor, parts[0], processor_kwargs={"num_frames": 3})
    with pytest.raises(ValueError, match="num_frames and fps exclude each other"):
        ask(processor, parts[0], processor_kwargs={"fps": 1.0})


@pytest.mark.parametrize(
    "option",
    [
        "nframes",
        "max_frames",
        "min_frames",
        "video_start",
        "video_end",
        "resized_height",
        "min_pixels",
    ],
)
@pytest.mark.parametrize("kind", ["video", "image", "text"])
def test_other_options_of_a_part_are_refused(processor, frames, kind, option):
    part = {**QUESTION, "type": kind, kind: {"video": frames(4), "image": frames(1)[0], "text": "Where?"}[kind]}
    part = {key: value for key, value in part.items() if key in ("type", kind)}
    assert "input_ids" in ask(processor, {**part, option: None})  # as tables of `datasets` fill their structs
    with pytest.raises(ValueError, match=f"A {kind} part knows type, .*, got {option}"):
        ask(processor, {**part, option: 2})


@pytest.mark.parametrize(
    "messages, options, message",
    [
        ([], {"tools": TOOLS}, "has no place for tools"),
        ([], {"documents": [{"title": "a", "text": "The chair is near."}]}, "has no place for documents"),
        ([{"role": "assistant", "content": "", "tool_calls": [CALL]}], {}, "a role and content, got tool_calls"),
        ([{"role": "tool", "content": "2 m"}], {}, "system, user or assistant, got tool"),
        ([{"role": "human", "content": "Hi"}], {}, "system, user or assistant, got human"),
        ([{"role": "user", "name": "Ada", "content": "Hi"}], {}, "a role and content, got name"),
        ([{"role": "assistant", "reasoning_content": "Well", "content": "2 m"}], {}, "role and content, got"),
    ],
)
def test_what_the_template_would_drop_is_refused(processor, tmp_path, messages, options, message):
    """By the template itself, so by every door that renders it."""
    chat = [{"role": "user", "content": "Hello"}, *messages]
    processor.save_pretrained(tmp_path)
    tokenizer = type(processor.tokenizer).from_pretrained(tmp_path)
    for door, error in ((processor, ValueError), (tokenizer, jinja2.TemplateError)):
        with pytest.raises(error, match=message):
            door.apply_chat_template(chat, **options)
    assert "Hello" in processor.apply_chat_template(chat[:1], tools=[], documents=None)


def test_a_template_of_the_caller_may_use_them(processor):
    template = "{% for tool in tools %}{{ tool['function']['name'] }}{% endfor %}"
    assert processor.apply_chat_template([{"role": "user", "content": "Hi"}], template, tools=TOOLS) == "measure"


@pytest.mark.parametrize("name", ["enable_thinking", "reasoning_effort", "min_pixels", "do_smaple_frames"])
def test_arguments_that_nothing_takes_are_refused(processor, frames, name):
    part = {"type": "video", "video": frames(4)}
    for options in ({name: 1}, {"processor_kwargs": {name: 1}}, {"processor_kwargs": {"text_kwargs": {name: 1}}}):
        with pytest.raises(TypeError, match=rf"has the arguments \['{name}'\]"):
            ask(processor, part, **options)
    for group in ("videos_kwargs", "images_kwargs"):
        with pytest.raises(TypeError, match=name):
            ask(processor, part, processor_kwargs={group: {name: 1}})
