"""Reproduce the paper's scores: convert checkpoints, run its five benchmarks, and compare with what was published.

python examples/reproduce_paper.py path/to/original --data data --launcher "accelerate launch --num_processes 8"
"""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from trainer.evaluation.published import PUBLISHED, as_markdown
from trainer.evaluation.reproduction import GIGABYTE, reproduce


def main() -> None:
    """Parse the command line, print the table, say on stderr what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", type=Path, help="original or converted folder")
    parser.add_argument("--data", required=True, type=Path, help="folder of the benchmarks in the public layout")
    parser.add_argument("--output", default="outputs/reproduction", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=tuple(PUBLISHED), default=tuple(PUBLISHED))
    parser.add_argument("--vision-tower", type=Path, help="SigLIP folder, where a checkpoint holds no vision tower")
    parser.add_argument("--launcher", help='for several GPUs, such as "accelerate launch --num_processes 8"')
    parser.add_argument("--dtype", default="float16", help="default: float16, as the original evaluates")
    parser.add_argument("--attention", help="attention implementation, such as sdpa or flash_attention_2")
    parser.add_argument("--batch-size", type=int, default=64, help="questions of a scene at a time, at most")
    parser.add_argument("--skip-invalid-poses", action="store_true", help="leave out frames without a finite pose")
    parser.add_argument("--max-memory", type=float, default=4.0, help="gigabytes beside the weights")
    given = vars(parser.parse_args())
    given["max_memory"] = int(given["max_memory"] * GIGABYTE)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("trainer.evaluation").setLevel(logging.INFO)
    try:
        comparisons = reproduce(**given)
    except (OSError, ValueError, ImportError, subprocess.CalledProcessError) as error:
        sys.exit(f"reproduce_paper: {error}")
    sys.stdout.write(as_markdown(comparisons))


if __name__ == "__main__":
    main()
