"""Compare the exported models of arms: tensors, bytes, and the time of an answer.

    python -m examples.emergence.exports examples/recipes/emergence_small.yaml --seed 1

Needs the weights of the runs, which lie in the output folder of the recipe. Models answer the same question in turns,
so that what else the machine does meets all of them; only the ratios mean something. The question sees the video, as
that of a user would.
"""

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from safetensors import safe_open
from tqdm import tqdm
from transformers import BatchFeature
from transformers.utils import logging as transformers_logging

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from processing.rooms import load_rooms
from processing.rooms.samples import video_arrays
from processing.writing import write_json
from trainer import export_inference_model

from .files import RunFiles, check_settings, describe_run
from .models import build_processor, load_run
from .recipe import Study, read_study
from .tables import markdown

__all__ = ["ExportComparison", "compare_exports", "describe_export", "time_answers"]

logger = logging.getLogger("emergence")

NEW_TOKENS = 8  # of a timed answer, no fewer and no more
QUESTION = "How far is the object?"
WEIGHTS = "model.safetensors"


class ExportFacts(TypedDict):
    """Shape and type of every tensor, bytes of the weights, text of the config."""

    tensors: dict[str, list]
    bytes: int
    config: str


class ExportComparison(TypedDict):
    """An export beside that of the control.

    `is_same`: names, shapes, types, bytes and config are those of the control. `seconds`: median CPU seconds of an
    answer. `ratio`: quartiles over turns of its time by that of the control.
    """

    bytes: int
    parameters: int
    is_same: bool
    seconds: float
    ratio: list[float]


def describe_export(folder: Path) -> ExportFacts:
    """Return shape and type of every tensor, bytes of the weights, text of the config."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        tensors = {name: [part.get_shape(), part.get_dtype()] for name, part in slices.items()}
    config = (folder / "config.json").read_text(encoding="utf-8")
    return {"tensors": tensors, "bytes": (folder / WEIGHTS).stat().st_size, "config": config}


def time_answers(
    models: Mapping[str, IDE3DForConditionalGeneration], inputs: BatchFeature, rounds: int
) -> dict[str, list[float]]:
    """Return CPU seconds (rounds,) of an answer by every model.

    Models answer in turns; a first turn is left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    names = list(models)
    for turn in tqdm(range(rounds + 1), desc="Turns", disable=None):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.process_time()
            models[name].generate(**inputs, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, do_sample=False)
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


def room_inputs(study: Study, processor: IDE3DProcessor) -> BatchFeature:
    """Return a question about the first room of validation."""
    room = load_rooms("validation", 1, image_size=study.image_size, num_frames=study.num_frames)[0]
    content = [{"type": "video"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=[text], videos=[video_arrays(room)["frames"]], return_tensors="pt")


def compare_exports(study: Study, seed: int, arms: Sequence[str], rounds: int) -> dict[str, ExportComparison]:
    """Export arms of a seed and compare them with the control.

    Args:
        study: Study of the runs.
        seed: Seed of the runs.
        arms: Names of the arms; the control is the first.
        rounds: Number of answers of each model that are timed.

    Raises:
        ValueError: If there are no rounds, the control is not the first arm, an arm is not trained, or was with other
            settings.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}.")
    if not arms or arms[0] != study.control:
        raise ValueError(f"The arms must begin with the control {study.control!r}, got {list(arms)}.")
    output, processor = Path(study.output_dir), build_processor(study)
    models, facts = {}, {}
    for name in arms:
        files = RunFiles(output, name, seed)
        if not files.training.is_file():
            raise ValueError(
                f"{name}, seed {seed}, is not trained: {files.training} is not there. Run the study first."
            )
        check_settings(files.training, describe_run(study, study.rows[name]))
        model = load_run(study, name, seed, processor)
        folder = export_inference_model(model, processor, output / "exports" / files.folder.name)
        facts[name] = describe_export(folder)
        models[name] = IDE3DForConditionalGeneration.from_pretrained(folder).eval()
    seconds = time_answers(models, room_inputs(study, processor), rounds)
    first = arms[0]
    return {
        name: {
            "bytes": facts[name]["bytes"],
            "parameters": models[name].num_parameters(),
            "is_same": facts[name] == facts[first],
            "seconds": float(np.median(seconds[name])),
            "ratio": np.quantile(np.divide(seconds[name], seconds[first]), (0.25, 0.5, 0.75)).tolist(),
        }
        for name in arms
    }


def format_comparison(study: Study, found: Mapping[str, ExportComparison]) -> str:
    """Return the comparison as a table in Markdown."""
    head = ["row", "parameters", "bytes", "tensors, types, config", "CPU time by that of the control (quartiles)"]
    labels, lines = study.labels(), []
    for name, entry in found.items():
        same, ratio = "the same" if entry["is_same"] else "DIFFERENT", "{1:.2f} ({0:.2f} to {2:.2f})"
        verdict = ["-", "1"] if name == study.control else [same, ratio.format(*entry["ratio"])]
        lines.append([labels[name], f"{entry['parameters']:,}", f"{entry['bytes']:,}", *verdict])
    return markdown(head, lines)


def main(words: list[str] | None = None) -> None:
    """Export the arms that are trained and say how they differ."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m examples.emergence.exports", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="YAML of the study")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=50, help="answers of each model")
    parser.add_argument("--output-dir", help="in place of the recipe's")
    options = parser.parse_args(words)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    changes = {} if options.output_dir is None else {"output_dir": options.output_dir}
    try:
        study = read_study(options.recipe, **changes)
        output = Path(study.output_dir)
        others = (name for name in study.rows if name != study.control)
        arms = [name for name in others if RunFiles(output, name, options.seed).training.is_file()]
        found = compare_exports(study, options.seed, [study.control, *arms], options.rounds)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    write_json(output / f"exports-seed{options.seed}.json", found)
    logger.info("%s", format_comparison(study, found))


if __name__ == "__main__":
    main()
