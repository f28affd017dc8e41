"""Chats of both dialects become one form, and what is no chat to learn from is refused by kind."""

import pytest
from chat_files import ask, say

from processing.chats.dialects import ChatError, parse_chat, parse_row

VIDEO, IMAGE = {"type": "video"}, {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def question_of(row):
    return parse_chat(row).messages[0]["content"]


@pytest.mark.parametrize(
    ("row", "parts", "video", "images"),
    [
        ({"video": "a.mp4", "conversations": ask("<video>\nWhy?")}, [VIDEO, text("Why?")], "a.mp4", ()),
        # LLaVA-Video writes <image> for its videos.
        ({"video": "a.mp4", "conversations": ask("<image>\nWhy?")}, [VIDEO, text("Why?")], "a.mp4", ()),
        ({"video": "a.mp4", "conversations": ask("Why?\n<image>")}, [text("Why?\n"), VIDEO], "a.mp4", ()),
        ({"image": "a.png", "conversations": ask("<image>\nWhy?")}, [IMAGE, text("Why?")], None, ("a.png",)),
        (
            {"images": ["a.png", "b.png"], "messages": say("<image>or<image>?")},
            [IMAGE, text("or"), IMAGE, text("?")],
            None,
            ("a.png", "b.png"),
        ),
        (
            {"video": "a.mp4", "image": "b.png", "messages": say("<video><image>Same?")},
            [VIDEO, IMAGE, text("Same?")],
            "a.mp4",
            ("b.png",),
        ),
        ({"messages": say([{"type": "video", "video": "a"}, text("Why?")])}, [VIDEO, text("Why?")], "a", ()),
        ({"messages": say([{"type": "video", "url": "file:///a"}, text("Why?")])}, [VIDEO, text("Why?")], "/a", ()),
        ({"videos": ["a"], "messages": say([VIDEO, text("Why?")])}, [VIDEO, text("Why?")], "a", ()),
        ({"video": ["1.jpg", "2.jpg"], "messages": say("<video>?")}, [VIDEO, text("?")], ["1.jpg", "2.jpg"], ()),
        ({"videos": [["1.jpg"]], "messages": say("<video>?")}, [VIDEO, text("?")], ["1.jpg"], ()),
        ({"video": None, "image": "", "messages": say("Why?")}, [text("Why?")], None, ()),
    ],
)
def test_one_form(row, parts, video, images):
    chat = parse_chat(row)
    assert chat.messages == [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [text("It is near.")]},
    ]
    assert (chat.video, chat.images) == (video, images)


def test_several_turns_and_the_system():
    row = {"messages": [{"role": "system", "content": "Be brief."}, *say("One?", "1"), *say("Two?", "2")]}
    assert [message["role"] for message in parse_chat(row).messages] == ["system", *["user", "assistant"] * 2]
    row = {"conversations": [{"from": "system", "value": "Be brief."}, *ask("One?", "1")]}
    assert [message["role"] for message in parse_chat(row).messages] == ["system", "user", "assistant"]


def test_the_row_is_left_alone():
    row = {"images": ["a.png"], "messages": say("<image>?")}
    assert parse_chat(row) == parse_chat(row) and row["images"] == ["a.png"]


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (
            {"id": 1, "chat": []},
            "row-broken",
            r"must have `messages` or `conversations`, got the keys \['chat', 'id'\]",
        ),
        ({"messages": say("a"), "conversations": ask("a")}, "row-broken", "got both"),
        ({"messages": []}, "row-broken", "Expected `messages` to be a list of messages"),
        ({"messages": ["a"]}, "row-broken", "expected messages with role and content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "row-broken", "a message is from one of .*got 'tool'"),
        ({"messages": say([{"type": "audio"}])}, "row-broken", "text, video or image, got 'audio'"),
        ({"messages": say(5)}, "row-broken", "needs content"),
        ({"video": 5, "messages": say("<video>?")}, "row-broken", "`video` must be a path as text, .*got 5"),
        ({"image": {"bytes": "x"}, "messages": say("<image>?")}, "row-broken", "Write embedded media to files"),
        (
            {"video": "https://a/b.mp4", "messages": say("<video>?")},
            "row-broken",
            "must be a path of a file or folder",
        ),
        ({"messages": 5}, "row-broken", "Expected `messages` to be a list of messages .*, got 5"),
        ({"conversations": {"a": 1}}, "row-broken", "Expected `conversations` to be a list of messages .*, got {"),
        ({"messages": say("<image>?")}, "placeholders", "more <image> placeholders than `image` paths"),
        ({"video": "a", "messages": say("<video><video>?")}, "placeholders", "more <video> placeholders"),
        ({"video": "a", "messages": say("Why?")}, "placeholders", "1 videos without a placeholder: write a <video>"),
        ({"image": ["a", "b"], "messages": say("<image>?")}, "placeholders", "1 images without a placeholder"),
        ({"videos": ["a", "b"], "messages": say("<video><video>?")}, "placeholders", "2 videos; a chat is about one"),
        ({"image": "a", "messages": say("Why?", "<image>")}, "placeholders", "an answer holds a placeholder <image>"),
        ({"messages": say("Why?")[:1]}, "no-answer", "has no answer"),
        ({"messages": say("Why?", " ")}, "no-answer", "or an empty one"),
    ],
)
def test_faults(row, kind, message):
    with pytest.raises(ChatError, match=message) as caught:
        parse_row(row, "chats.json, row 3")
    assert caught.value.kind == kind and str(caught.value).startswith("chats.json, row 3")
    with pytest.raises(ValueError, match=message):
        parse_chat(row)
