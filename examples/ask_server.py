"""Ask `ide3d serve` about a video, each answer streamed, with the time to its first and its last word.

    ide3d serve &
    python examples/ask_server.py room.mp4 "Is there a red chair?" "How many chairs are in the room?"

Any client of OpenAI's interface will do; this is the client `openai` as it comes.
"""

import argparse
import base64
import sys
import time
from pathlib import Path

from openai import OpenAI


def main(words: list[str] | None = None) -> None:
    """Ask the questions one by one, each in a chat of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--url", default="http://localhost:8000/v1", help="Address of the server.")
    args = parser.parse_args(words)

    client = OpenAI(base_url=args.url, api_key="none")
    model = client.models.list().data[0].id
    video = "data:video/mp4;base64," + base64.b64encode(args.video.read_bytes()).decode()
    for question in args.questions:
        parts = [{"type": "video_url", "video_url": {"url": video}}, {"type": "text", "text": question}]
        start, first, answer = time.perf_counter(), None, ""
        stream = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": parts}], max_tokens=64, stream=True
        )
        for chunk in stream:
            answer += chunk.choices[0].delta.content or ""
            first = first or (time.perf_counter() if answer else None)
        end = time.perf_counter()
        sys.stdout.write(f"{(first or end) - start:6.2f} s  {end - start:6.2f} s  {question}  {answer}\n")


if __name__ == "__main__":
    main()
