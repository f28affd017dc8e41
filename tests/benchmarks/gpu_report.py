"""Check and time everything that needs a GPU, and write what was found into the table of GPU.md.

    python tests/benchmarks/gpu_report.py

Each part of `gpu_parts.py` runs in a process of its own with a time limit: one that fails is a row. Where no GPU is,
nothing is run and nothing written. `--device cpu --small` runs the same lines at tiny sizes and prints the table.
"""

import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "GPU.md"
SCRIPT = Path(__file__).with_name("gpu_parts.py")
START, END = "<!-- platforms: written by gpu_report.py -->", "<!-- end of platforms -->"
EMPTY = "No platform yet: nothing was run on a GPU."
# Name of a part here, in `gpu_parts.py`, and whether it sees all GPUs. The others see the first.
PARTS = {
    "tests": ("tests", False),
    "equality-nano": ("equality-nano", False),
    "equality-7b": ("equality-7b", False),
    "packed": ("packed", False),
    "decode": ("decode", False),
    "step": ("step", False),
    "step-lora": ("step-lora", False),
    "session": ("session", False),
    "session-7b": ("session-7b", False),
    "ddp": ("step", True),
    "gradients": ("gradients", True),
}


def run_part(name: str, device: str, is_small: bool, limit: float) -> list[dict[str, str]]:
    """Run a part and return its rows."""
    part, sees_all = PARTS[name]
    command = [sys.executable]
    if name == "ddp":
        count = torch.cuda.device_count() if device == "cuda" else 2
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    command += [str(SCRIPT), part, "--device", device, *["--small"] * is_small]
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    if device == "cuda" and not sees_all:
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        found = run_process([*command, "--output", str(rows)], environment, rows, limit)
    return [{"part": name, **row} for row in found]


def run_process(command: Sequence[str], environment: dict[str, str], rows: Path, limit: float) -> list[dict[str, str]]:
    """Run a command that writes rows; a failure and a time-out are a row behind those that were written.

    Args:
        command: Program and arguments.
        environment: Its environment variables.
        rows: File that it writes, a JSON object a line.
        limit: Seconds after which it is ended, with the processes that it started.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(limit)
            verdict = f"failed: exit code {process.returncode}" if process.returncode else None
        except subprocess.TimeoutExpired:
            verdict = f"failed: more than {limit:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its workers, which are in groups of their own
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        log.seek(0)
        written = log.read()
    found = [json.loads(line) for line in rows.read_text("utf-8").splitlines()] if rows.is_file() else []
    if verdict is None and not found:
        verdict = "failed: no rows"
    if verdict is not None:
        # The last line that names an error: launchers write more behind it.
        errors = re.findall(r"^(?:\[rank\d+\]: )?([\w.]*(?:Error|Exception|Interrupt)\b.*)$", written, re.MULTILINE)
        lines = errors or written.split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        found.append({"what": "the whole part", "result": "", "verdict": f"{verdict}, {reason[:200]}"})
    return found


def describe_platform(device: str) -> str:
    """Name of the card, its driver and the versions; the heading of a table."""
    names = f"torch {torch.__version__}, transformers {version('transformers')}"
    if device == "cpu":
        return f"CPU, {names}"
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = torch.cuda.get_device_properties(0).total_memory / 1024**3
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    return f"{len(cards)} x {cards[0]}, {memory:.0f} GB, driver {driver}, {kind}, {names}"


def make_table(platform: str, rows: Sequence[dict[str, str]], date: str) -> str:
    """Section of a platform in Markdown."""
    lines = [f"### {platform}", "", f"Run on {date}.", "", "| Part | What | Result | Verdict |", "|---|---|---|---|"]
    for row in rows:
        cells = (row[name].replace("|", "\\|").replace("\n", " ") for name in ("part", "what", "result", "verdict"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replace_section(text: str, section: str) -> str:
    """Return the page with the section of a platform, in place of an earlier one with the same heading.

    Raises:
        ValueError: If the page has no markers.
    """
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"The page must have the lines {START!r} and {END!r} once each.")
    before, rest = text.split(START)
    inside, after = rest.split(END)
    sections = [part.strip() for part in re.split(r"^(?=### )", inside, flags=re.MULTILINE)]
    heading = section.split("\n")[0]
    kept = [part for part in sections if part not in ("", EMPTY) and part.split("\n")[0] != heading]
    return before + "\n\n".join([START, *kept, section, END]) + after


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts and write the table; the exit code is 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--limit", type=float, default=900, help="seconds of a part")
    parser.add_argument(
        "--output", type=Path, help="page with the markers that the table is written into; default: GPU.md for a GPU"
    )
    args = parser.parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.stdout.write("No GPU is at hand: nothing was run, nothing is written.\n")
        return 0
    # A run of some parts, or at tiny sizes, is no whole table.
    is_whole = args.device == "cuda" and not args.small and set(args.parts) == set(PARTS)
    page = args.output or (PAGE if is_whole else None)
    text = page.read_text("utf-8") if page else f"{START}\n{END}"
    replace_section(text, "### none")  # a page without markers is an error before the run
    rows = []
    for name in args.parts:
        sys.stderr.write(f"{name} ...\n")
        rows += run_part(name, args.device, args.small, args.limit)
    section = make_table(describe_platform(args.device), rows, datetime.date.today().isoformat())
    sys.stdout.write(section + "\n")
    if page:
        page.write_text(replace_section(text, section), "utf-8")
    return int(any(row["verdict"].startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
