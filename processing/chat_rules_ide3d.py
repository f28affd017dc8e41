"""One rule for chats and prompts at every door, and the template that renders them.

`check_chats` judges the form: messages, roles, parts and their types. What a template knows of them, such as the names
of roles, it refuses itself.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

# Qwen ChatML. A line break follows each video or image that is not the last part of its message, as in LLaVA-Video.
# The generation block spans the answer and the token that ends it: these are the tokens a model learns to write.
DEFAULT_CHAT_TEMPLATE = r"""
{%- set parts = {
    'text': ['type', 'text'],
    'video': ['type', 'video', 'url', 'path', 'num_frames', 'fps'],
    'image': ['type', 'image', 'url', 'path', 'base64'],
} -%}
{%- macro render(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content or [] -%}
            {%- set known = parts[part['type']] or part -%}
            {%- for key in part if key not in known and part[key] is not none -%}
                {{- raise_exception("A " + part['type'] + " part knows " + known | join(', ') + ", got " + key) -}}
            {%- endfor -%}
            {%- if part['type'] == 'text' -%}
                {{- part['text'] -}}
            {%- elif part['type'] in ('video', 'image') -%}
                {{- '<video>' if part['type'] == 'video' else '<image>' -}}
                {{- '' if loop.last else '\n' -}}
            {%- else -%}
                {{- raise_exception("A message part has the type video, image or text, got " + part['type']) -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- if tools or documents -%}
    {{- raise_exception("This template has no place for " + ('tools' if tools else 'documents')
        + ": write them into a message, or give a chat_template that has one") -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] not in ['system', 'user', 'assistant'] -%}
        {{- raise_exception("A message has the role system, user or assistant, got " + message['role']) -}}
    {%- endif -%}
    {%- for key in message if key not in ['role', 'content'] and message[key] -%}
        {{- raise_exception("A message has a role and content, got " + key) -}}
    {%- endfor -%}
{%- endfor -%}
{%- if not messages or messages[0]['role'] != 'system' -%}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}
            {{- render(message['content']) + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- render(message['content']) + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


def check_chats(conversation: Any) -> None:
    """Check the form of a chat or of a batch of chats.

    Args:
        conversation (`Any`):
            List of messages, or list of such lists. Chat and message objects of Transformers' doors are taken too.

    Raises:
        ValueError: as [`check_chat`] does, with the index of the chat.
    """
    chat = getattr(conversation, "messages", conversation)
    if _is_list(chat) and len(chat) and (_is_list(chat[0]) or hasattr(chat[0], "messages")):
        for index, entry in enumerate(chat):
            check_chat(getattr(entry, "messages", entry), f"chat {index}")
    else:
        check_chat(chat)


def check_chat(chat: Any, name: str = "the chat") -> None:
    """Check the form of one chat.

    Args:
        chat (`Any`):
            List of messages: dictionaries with `role` and `content`, a text or a list of parts with a `type`.
        name (`str`, *optional*):
            How errors call the chat.

    Raises:
        ValueError: for what is no list of messages, a message without role or content, and a part without type or
            text. It names the message and the part.
    """
    expected = "a list of messages with role and content"
    if not _is_list(chat) or not len(chat):
        raise ValueError(f"Expected {name} to be {expected}, got {reprlib.repr(chat)}.")
    for index, message in enumerate(chat):
        if is_dataclass(message) or hasattr(message, "model_dump"):
            continue  # Transformers makes it a dictionary.
        where = f"Message {index} of {name}"
        if not isinstance(message, Mapping):
            raise ValueError(f"{where} is no message. Expected {expected}, got {reprlib.repr(message)}.")
        if not isinstance(message.get("role"), str):
            raise ValueError(f"{where} needs a role in words. Expected {expected}, got {reprlib.repr(dict(message))}.")
        _check_content(message, where)


def list_parts(conversations: list[list[dict]]) -> list[dict]:
    """Return the parts of all messages of chats that passed [`check_chats`]."""
    contents = [message.get("content") for conversation in conversations for message in conversation]
    return [part for content in contents if isinstance(content, (list, tuple)) for part in content]


def list_texts(message: Mapping[str, Any]) -> list[str]:
    """Return the texts of a message that passed [`check_chat`]."""
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if part["type"] == "text"]


def list_prompts(text: Any) -> list[str]:
    """Return one text or several as a list.

    Raises:
        TypeError: for what is neither a string nor strings.
        ValueError: for an empty list.
    """
    if isinstance(text, str):
        _check_encodable(text)
        return [text]
    is_iterable = isinstance(text, Iterable) and getattr(text, "ndim", 1) and not isinstance(text, (bytes, Mapping))
    texts = list(text) if is_iterable else [text]
    if wrong := [entry for entry in texts if not isinstance(entry, str)]:
        raise TypeError(
            f"`text` must be a string or a list of strings, got {type(wrong[0]).__name__}. A chat becomes one by "
            "`apply_chat_template`."
        )
    if not texts:
        raise ValueError("`text` must be a string or a list of strings, got an empty list. Give at least one.")
    for entry in texts:
        _check_encodable(entry)
    return texts


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"`text` must be Unicode, got the lone surrogate {text[error.start]!a} at character {error.start}. Read "
            "the file that it comes from with its right encoding."
        ) from error


def check_placeholders(**tokens: str) -> None:
    """Check that the placeholders, such as `image_token="<image>"`, are different texts.

    Raises:
        TypeError: for what is no text.
        ValueError: for two equal ones.
    """
    for name, token in tokens.items():
        if not isinstance(token, str):
            raise TypeError(f"{name} must be a text, such as '<image>', got {token!r}.")
    if len(set(tokens.values())) < len(tokens):
        raise ValueError(f"{', '.join(tokens)} must differ, got {list(tokens.values())}.")


def find_token(tokenizer: PreTrainedTokenizerBase, token: str, name: str = "token") -> int:
    """Return the id of a special token that the tokenizer must know whole.

    Raises:
        ValueError: for a tokenizer without it.
    """
    token_id = tokenizer.convert_tokens_to_ids(token)
    is_unknown = token_id is None or token_id == tokenizer.unk_token_id
    if is_unknown or list(tokenizer(token, add_special_tokens=False)["input_ids"]) != [token_id]:
        raise ValueError(
            f"The tokenizer has no special token {token!r}, the {name} of the processor. Add the tokens first with "
            "`IDE3DProcessor.add_special_tokens(tokenizer)`, and resize the model's embedding if it has fewer rows "
            "than len(tokenizer)."
        )
    return token_id


def _check_content(message: Mapping[str, Any], where: str) -> None:
    content = message.get("content")
    if isinstance(content, str) or (
        content is None and any(message[key] is not None for key in message if key != "role")
    ):
        return  # Some templates take tool calls instead of a content.
    if not _is_list(content) or not len(content):
        raise ValueError(
            f"{where} needs content: a text, or a list of parts such as {{'type': 'text', 'text': '...'}}, got "
            f"{reprlib.repr(content)}."
        )
    for index, part in enumerate(content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ValueError(
                f"{where}: part {index} needs a type, such as {{'type': 'text', 'text': '...'}}, got "
                f"{reprlib.repr(part)}."
            )
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise ValueError(f"{where}: part {index} needs its words in 'text', got {reprlib.repr(dict(part))}.")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


__all__ = [
    "DEFAULT_CHAT_TEMPLATE",
    "check_chat",
    "check_chats",
    "check_placeholders",
    "find_token",
    "list_parts",
    "list_prompts",
    "list_texts",
]
