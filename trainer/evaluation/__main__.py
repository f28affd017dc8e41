"""Run a model over a benchmark: `python -m trainer.evaluation --model M --task scanqa --data D`."""

import argparse
import logging
import sys

from trainer.data.scene_regions import REGION_SOURCES
from trainer.evaluation.runner import EvaluationSettings, run_evaluation
from trainer.evaluation.tasks import EVALUATED_TASKS


def parse_arguments(arguments: list[str] | None = None) -> EvaluationSettings:
    """Read the settings from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation",
        description="Answer a benchmark, score it, and write a report. The same command goes on where it was stopped.",
    )
    parser.add_argument("--model", required=True, help="folder or Hub name of a model or a PEFT adapter")
    parser.add_argument("--task", required=True, choices=sorted(EVALUATED_TASKS))
    parser.add_argument("--data", required=True, help="folder in the public layout")
    parser.add_argument("--protocol", default="clean", choices=("clean", "paper"))
    parser.add_argument("--split", help="split of the benchmark; default: the one that papers report")
    parser.add_argument("--boxes", choices=("gt", "pred"), help="candidates of grounding; default: the original's")
    parser.add_argument(
        "--regions", default="depth", choices=tuple(REGION_SOURCES), help="source of the masks of boxes"
    )
    parser.add_argument("--frames", default="uniform", choices=("uniform", "listed", "coverage"))
    parser.add_argument(
        "--num-frames", type=int, help="number of frames of a scene at most; default: that of the processor"
    )
    parser.add_argument("--skip-invalid-poses", action="store_true", help="leave out frames without a finite pose")
    parser.add_argument("--scenes", nargs="+", help="names of scenes; default: all")
    parser.add_argument("--batch-size", type=int, default=64, help="number of questions of a scene at a time at most")
    parser.add_argument(
        "--max-new-tokens", type=int, help="number of tokens of an answer at most; default: that of the task"
    )
    parser.add_argument("--max-memory", type=float, default=4.0, help="gigabytes beside the weights")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--attention", help="attention implementation, such as sdpa or flash_attention_2")
    parser.add_argument("--variant", help='variant of the metric, such as "ptb"')
    parser.add_argument(
        "--no-meteor", dest="meteor", action="store_false", default=None, help="leave METEOR out, which takes long"
    )
    parser.add_argument("--output", help="output folder; default: outputs/evaluation/<task>-<split>-<protocol>")
    given = vars(parser.parse_args(arguments))
    split = given["split"] or EVALUATED_TASKS[given["task"]].task.eval_split
    given["output"] = given["output"] or f"outputs/evaluation/{given['task']}-{split}-{given['protocol']}"
    given["max_memory"] = int(given["max_memory"] * 1024**3)
    given["scenes"] = tuple(given["scenes"]) if given["scenes"] else None
    return EvaluationSettings(**given)


def main() -> None:
    """Run the evaluation and write its main score."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("trainer.evaluation").setLevel(logging.INFO)
    settings = parse_arguments()
    try:
        results = run_evaluation(settings)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if results is not None:
        scores = results["scores"][settings.protocol]
        low, high = scores["bands"][results["main_score"]]
        band = "" if low is None else f" (95 % band {low:.1f} to {high:.1f})"
        value = scores[results["main_score"]]
        sys.stdout.write(f"{settings.task} {results['main_score']}: {value:.2f}{band}, {settings.protocol}\n")


if __name__ == "__main__":
    main()
