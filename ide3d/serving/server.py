"""The server: Transformers' own, with one model, our readers of media, and a memory of scenes."""

import asyncio
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.cli.serving import server as transformers_server
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.model_manager import ModelManager, TimedModel
from transformers.cli.serving.utils import GenerationState

from ide3d.serving.fields import check_fields, is_sampled
from ide3d.serving.media import MediaRules, Medium, read_chat
from ide3d.serving.memory import SceneMemory

__all__ = ["build_server"]

logger = logging.getLogger(__name__)

# `/load_model` of Transformers would load any model that a stranger names, `/reset` would unload ours, and the others
# read media by rules of their own.
SERVED_PATHS = ("/v1/chat/completions", "/v1/models", "/health")
NO_OBJECT = "The body of a request must be a JSON object, sent as application/json."
READERS_AT_ONCE = 4  # requests whose media are in memory before they are encoded
MEBIBYTE = 2**20


class SceneChatHandler(ChatCompletionHandler):
    """Answers chats about pictures and videos.

    Args:
        model_manager: Manager that holds one model.
        generation_state: Threads that generate.
        memory: Memory of scenes.
        rules: Rules of the media that may be read.
        num_frames: Frames of a video, at most, where a request does not say; None for the processor's.
    """

    def __init__(
        self,
        model_manager: ModelManager,
        generation_state: GenerationState,
        memory: SceneMemory,
        rules: MediaRules,
        num_frames: int | None = None,
    ):
        super().__init__(model_manager, generation_state)
        self.memory, self.rules, self.num_frames = memory, rules, num_frames
        self._readers = asyncio.Semaphore(READERS_AT_ONCE)

    async def handle_request(self, body: dict, request_id: str) -> Any:
        """Answer a chat; see the class of Transformers.

        Raises:
            HTTPException: 400 for what cannot be read or asked, with the reader's message.
        """
        with _client_errors():
            check_fields(body)
        model_id, model, processor = self._resolve_model(body)
        manager = self.generation_state.get_manager(model_id)
        with _client_errors():
            num_frames = self._read_options(body)
            config = self._choose_decoding(body, model.generation_config)
            async with self._readers:
                chat, media = await asyncio.to_thread(read_chat, body.get("messages"), self.rules)
                pixels = await self._read_all(media, num_frames)
                inputs = await manager.async_submit(self.memory.prepare, chat, media, pixels, num_frames)
            room = self.memory.context - inputs["input_ids"].shape[1]
            config.max_new_tokens = min(config.max_new_tokens, room)
            respond = self._streaming if body.get("stream") else self._non_streaming
            # The manager of Transformers searches `stop` in the vocabulary of what it is given; a processor has none.
            tokenizer = processor.tokenizer
            if body.get("seed") is not None:  # the thread that generates takes it right before this answer
                manager.submit(torch.manual_seed, body["seed"])
            answer = respond(request_id, model, tokenizer, model_id, inputs, config, gen_manager=manager)
            return await answer if inspect.isawaitable(answer) else answer

    async def _read_all(self, media: Sequence[Medium], num_frames: int | None) -> list[Tensor | None]:
        """Return the pixels of media, or None where these are kept; see `SceneMemory.read_pixels`."""
        pixels, left = [], self.memory.max_frames
        for medium in media:
            pixels.append(await asyncio.to_thread(self.memory.read_pixels, medium, num_frames))
            left -= 0 if pixels[-1] is None else len(pixels[-1])
            if left < 0:  # many small files of many frames would fill the memory
                raise ValueError(f"A chat holds at most {self.memory.max_frames} frames. Ask for fewer of each video.")
        return pixels

    def _choose_decoding(self, body: dict, default: GenerationConfig) -> GenerationConfig:
        """Return the decoding that a request asks for.

        Transformers' own leaves a greedy model greedy at any temperature, and takes no whole numbers as a bias. It
        sets the seed at once, while another answer may be drawn.
        """
        biases = {token: float(bias) for token, bias in (body.get("logit_bias") or {}).items()}
        config = self._build_generation_config({**body, "seed": None, "logit_bias": biases or None}, default)
        config.do_sample = is_sampled(body, config.do_sample)
        return config

    def _read_options(self, body: dict) -> int | None:
        """Return the number of frames that a request asks for; refuse unknown options."""
        options = body.get("chat_template_kwargs") or {}
        if not isinstance(options, dict) or set(options) - {"num_frames"}:
            raise ValueError(f"chat_template_kwargs may hold num_frames alone, got {options!r:.100}.")
        num_frames = options.get("num_frames", self.num_frames)
        self.memory.check_num_frames(num_frames)
        return num_frames


class BodyLimit:
    """Refuses requests whose body is longer than allowed, before it is in memory.

    Args:
        app: Application behind it.
        max_bytes: Bytes of a body, at most.
    """

    def __init__(self, app: Any, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Pass on a request, piece by piece."""
        told = f"The request is longer than {self.max_bytes} bytes. Send a shorter video."
        announced = dict(scope.get("headers", ())).get(b"content-length", b"0")
        if int(announced) > self.max_bytes:  # the server has checked that it is a number
            await _tell(HTTPException(413, told))(scope, receive, send)
            return
        received = 0

        async def receive_some() -> dict:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, told)
            return message

        await self.app(scope, receive_some if scope["type"] == "http" else receive, send)


def build_server(
    name: str,
    model: nn.Module,
    processor: Any,
    *,
    rules: MediaRules | None = None,
    num_frames: int | None = None,
    max_memory: int = 4 * 1024**3,
) -> FastAPI:
    """Build a server of one model: `/v1/chat/completions`, `/v1/models` and `/health`.

    Args:
        name: Name of the model, which clients give.
        model: `IDE3DForConditionalGeneration` in evaluation mode.
        processor: `IDE3DProcessor` of the model.
        rules: Rules of the media that may be read; default: those of requests themselves, and public addresses.
        num_frames: Frames of a video, at most; default: as many as the processor says.
        max_memory: Bytes of visual tokens, keys and values that are kept for further questions.

    Returns:
        Application for an ASGI server such as uvicorn.

    Raises:
        ValueError: If `num_frames` is no number of frames that fit into the context.
    """
    rules = rules or MediaRules()
    memory = SceneMemory(model, processor, max_memory)
    memory.check_num_frames(num_frames)
    manager = ModelManager(device=str(model.device))
    manager.force_model = name
    manager.loaded_models[manager.process_model_name(name)] = TimedModel(model, -1, processor)
    state = GenerationState()
    handler = SceneChatHandler(manager, state, memory, rules, num_frames)
    app = transformers_server.build_server(manager, handler, None, None, None, None, generation_state=state)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in SERVED_PATHS]
    app.add_exception_handler(StarletteHTTPException, lambda _request, error: _tell(error))
    app.add_exception_handler(RequestValidationError, lambda _request, _error: _tell(HTTPException(400, NO_OBJECT)))
    # Base64 takes 4 bytes for 3, and there is text too.
    app.add_middleware(BodyLimit, max_bytes=rules.max_bytes * 4 // 3 + MEBIBYTE)
    app.state.memory = memory
    return app


@contextmanager
def _client_errors() -> Iterator[None]:
    """Turn errors about what a client sent into answers of the status 400."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        logger.info("Refused a request: %s", error)
        raise HTTPException(400, {"message": str(error), "param": getattr(error, "param", None)}) from error


def _tell(error: StarletteHTTPException) -> JSONResponse:
    """Return an error in OpenAI's form."""
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    detail = error.detail if isinstance(error.detail, dict) else {"message": str(error.detail), "param": None}
    told = {**detail, "type": kind, "code": error.status_code}
    return JSONResponse({"error": told}, status_code=error.status_code, headers=error.headers)
