"""Fields of a request in OpenAI's form: each is honoured, changes no answer, or is refused by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from processing.argument_rules import check_flag, check_number, check_text, check_texts, check_whole
from trainer.field_rules import find_near

__all__ = ["FieldError", "check_fields", "is_sampled"]


class FieldError(ValueError):
    """A field of a request that cannot be honoured.

    Args:
        name: Name of the field.
        told: Message for the client.
    """

    def __init__(self, name: str, told: str):
        super().__init__(told)
        self.param = name


def _check_stop(value: Any, name: str) -> None:
    texts = [value] if isinstance(value, str) else check_texts(value, name, is_ordered=True)
    if not all(texts):
        raise ValueError(f"`{name}` must hold texts that are not empty, got {value!r:.100}.")


def _check_bias(value: Any, name: str) -> None:
    if not isinstance(value, Mapping) or not all(token.isdecimal() for token in value):
        raise TypeError(f"`{name}` must map ids of tokens to numbers, got {value!r:.100}.")
    for token, bias in value.items():
        check_number(bias, f"{name}[{token}]", least=-100, largest=100)


# OpenAI's ranges; a frequency penalty is Transformers' repetition penalty less 1, which must be above 0.
HONOURED: dict[str, Callable[[Any, str], Any] | None] = {
    "model": check_text,
    "messages": None,  # read_chat checks them
    "chat_template_kwargs": None,  # the handler checks them
    "stream": check_flag,
    "temperature": partial(check_number, least=0, largest=2),
    "top_p": partial(check_number, above=0, largest=1),
    "seed": partial(check_whole, least=-(2**63), largest=2**63 - 1),
    "max_tokens": partial(check_whole, least=1),
    "max_completion_tokens": partial(check_whole, least=1),
    "frequency_penalty": partial(check_number, above=-1, largest=2),
    "logit_bias": _check_bias,
    "stop": _check_stop,
}
# For a provider's own records, or for tools alone. The last piece of a stream has `usage` in any case.
WITHOUT_EFFECT = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "stream_options",
    "user",
)
# Values that ask for what the server does anyway; any other is refused.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}


def check_fields(body: Mapping[str, Any]) -> None:
    """Check the fields of a request; null stands for none.

    Args:
        body: Request as the client sent it.

    Raises:
        FieldError: If a field is unknown, or asks for what this server does not do.
    """
    for name, value in body.items():
        if value is None or name in WITHOUT_EFFECT or value in DEFAULTS.get(name, ()):
            continue
        if name in DEFAULTS:
            takes = " or ".join(repr(default) for default in DEFAULTS[name])
            raise FieldError(name, f"`{name}` may only be {takes} here, got {value!r:.100}. Leave it out.")
        if name not in HONOURED:
            near = find_near(name, HONOURED)
            raise FieldError(name, f"This server does not know the field {name!r:.100}. Leave it out.{near}")
        try:
            if check := HONOURED[name]:
                check(value, name)
        except (TypeError, ValueError) as error:
            raise FieldError(name, str(error)) from None


def is_sampled(body: Mapping[str, Any], default: bool) -> bool:
    """Return whether an answer is drawn.

    It is at a temperature above 0, or by `top_p` below 1 where no temperature is given.
    """
    temperature, top_p = body.get("temperature"), body.get("top_p")
    if temperature is not None:
        return temperature > 0
    return default if top_p is None else top_p < 1
