"""Servers in threads, and what a client sends them."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODEL = "nano"


@contextmanager
def serve(app) -> Iterator[str]:
    """Run an application in a thread; yield its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connect(loaded, **settings):
    """Serve the nano model; yield a client and the application."""
    from openai import OpenAI

    from ide3d.serving.server import build_server

    app = build_server(MODEL, *loaded, **settings)
    with serve(app) as address:
        yield OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0), app


def as_url(path: Path, mime: str = "video/mp4") -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def about(question: str, *parts) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def video_part(url: str) -> dict:
    return {"type": "video_url", "video_url": {"url": url}}


def ask(client, messages, **options) -> str:
    options = {"model": MODEL, **options}
    return client.chat.completions.create(messages=messages, **options).choices[0].message.content
