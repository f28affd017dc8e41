"""Memory that files of chats take, by the number of rows: of the table, of the stream, and of the doctor.

    python tests/benchmarks/chat_memory.py
    python tests/benchmarks/chat_memory.py --rows 10000 1000000

Rows are generated: chats in LLaVA's dialect about 1,000 videos, none of which is there. Each measurement is a process
of its own. It goes through every row, of table and stream in a shuffled order as a training does, without media. It
tells the rise of its memory, from before the file is opened to the peak, in anonymous pages: the system gives back the
pages of mapped files when it needs them. Linux only.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from processing.tables import markdown_table

KINDS = ("table", "stream", "doctor")
SECONDS = 0.02  # between two looks at the memory
BATCH = 8


def write_rows(path: Path, count: int) -> None:
    """Write a file of `count` chats without holding them."""
    with path.open("w") as file:
        for number in range(count):
            turns = [
                {"from": "human", "value": f"<image>\nRoom {number}: how many chairs are there, and which is near?"},
                {"from": "gpt", "value": f"There are {number % 7}. The one beside the bed is near."},
                {"from": "human", "value": "What is left of it?"},
                {"from": "gpt", "value": "A lamp. " * 30},
            ]
            row = {"id": str(number), "video": f"videos/{number % 1000}.mp4", "conversations": turns}
            file.write(json.dumps(row) + "\n")


def read_anonymous() -> int:
    """Return the anonymous memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status names no RssAnon: this script needs Linux.")


class Peak:
    """Highest anonymous memory while the block runs, in bytes beyond that at its beginning."""

    def __enter__(self) -> "Peak":
        self.start = self.highest = read_anonymous()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.is_over.wait(SECONDS):
            self.highest = max(self.highest, read_anonymous())

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join()
        self.rise = max(self.highest, read_anonymous()) - self.start


def measure(kind: str, path: Path) -> dict[str, float]:
    """Go through a file, and return the rows seen and the rise of memory in MB."""
    from torch.utils.data import DataLoader, RandomSampler

    from processing.chats import examine_chats, load_chats
    from processing.chats.loading import unpack_chat
    from trainer.loop import ChatStream

    num_rows = sum(1 for _ in path.open("rb"))
    seen = 0
    with Peak() as peak:
        if kind == "table":
            rows = load_chats([str(path)], cache_dir=path.parent / "cache")
            batches = DataLoader(rows, batch_size=BATCH, sampler=RandomSampler(rows), collate_fn=list)
        elif kind == "stream":
            batches = DataLoader(ChatStream([str(path)], batch=BATCH), batch_size=BATCH, collate_fn=list)
            batches = itertools.islice(batches, num_rows // BATCH)
        else:
            seen, batches = examine_chats([str(path)]).chats, ()
        for batch in batches:
            seen += sum(1 for row in batch if unpack_chat(row).video)
    return {"seen": seen, "rows": num_rows, "megabytes": peak.rise / 1e6}


def main() -> None:
    """Write the table, or measure one cell of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(measure(options.measure, options.file)))
        return
    cells = []
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "chats.jsonl")
            write_rows(path, count)
            cells.append([f"{count:,}", f"{path.stat().st_size / 1e6:.0f}"])
            for kind in KINDS:
                command = [sys.executable, __file__, "--measure", kind, "--file", str(path)]
                told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                assert told["seen"] == told["rows"] == count, told
                cells[-1].append(f"{told['megabytes']:.0f}")
    sys.stdout.write(markdown_table(("rows", "file, MB", *(f"{kind}, MB" for kind in KINDS)), cells, "rrrrr") + "\n")


if __name__ == "__main__":
    main()
