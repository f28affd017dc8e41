"""Do one run: train an arm with a seed, ask it and probe it.

    python -m examples.emergence.run examples/recipes/emergence.yaml --seed 9 --arm all --split validation

The study starts these, side by side. What is done is kept in the folder of the run, phase by phase: a run that was
killed goes on behind its last phase.
"""

import argparse
import logging
import sys
from pathlib import Path

import datasets
import torch

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from processing.rooms import load_rooms
from processing.writing import write_json

from .files import RunFiles
from .models import build_processor, load_run, study_grid
from .questions import read_asked, say_boxes, store_asked
from .recipe import SPLITS, Arm, Study, read_study
from .scores import score_split
from .training import labelled_questions, take_lesson, train_run

__all__ = ["evaluate_run", "open_split", "store_questions"]


def store_questions(study: Study, split: str) -> Path:
    """Return the folder with what a split is asked, written if it is not there."""
    folder = Path(study.output_dir) / "rooms" / study.scored_name(split)
    if not (folder / "asked.json").is_file():
        store_asked(folder, open_split(study, split), study_grid(study))
    return folder


def open_split(study: Study, split: str) -> datasets.Dataset:
    """Open the rooms of a split that are asked about."""
    options = {"image_size": study.image_size, "num_frames": study.num_frames}
    first, count = study.first_scored(split), study.num_scored(split)
    return load_rooms(split, count, start=first, **options)


def list_read_layers(model: IDE3DForConditionalGenerationWithGeometry, arm: Arm) -> list[str]:
    """Return the hidden states that losses of the pool phase read.

    The language model has no layers there: its final states are its input behind the norm.
    """
    final, layers = model.state_layers.final, []
    if arm.depth or arm.cross_view:
        layers += [f"vision.{layer}" for layer in model.geometric_validator.config.layer_indices]
    layers += model.distillation_layers if arm.teacher else ()
    layers += [model.camera_layer] if arm.pose or arm.scale else []
    return list(dict.fromkeys(["language.0", *layers] if final in layers else layers))


def evaluate_run(study: Study, name: str, seed: int, split: str) -> None:
    """Ask a trained run about a split and probe it.

    The result is written once and then kept.
    """
    path = RunFiles(Path(study.output_dir), name, seed).result(split)
    if path.is_file():
        return
    processor = build_processor(study)
    model = load_run(study, name, seed, processor).eval()
    rooms = open_split(study, split)
    read = list_read_layers(model, study.rows[name])
    samples = read_asked(store_questions(study, split))
    if study.say_boxes:
        samples = [say_boxes(sample) if sample["questions"] else sample for sample in samples]
    probed = (rooms[index] for index in range(min(study.probe_rooms, len(rooms))))
    labelled = labelled_questions(study, name, seed)
    scores = score_split(model, processor, samples, probed, labelled, read)
    about = {"row": name, "seed": seed, "split": split, "first_room": study.first_scored(split)}
    write_json(path, {**about, **scores}, indent=None)


def main(words: list[str] | None = None) -> None:
    """Train and evaluate one run, or take the lessons that all share."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m examples.emergence.run", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="YAML of the study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arm", "--row", help="name of the arm; without it the lessons that all runs share are taken")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--output-dir", help="in place of the recipe's")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    changes = {} if options.output_dir is None else {"output_dir": options.output_dir}
    try:
        study = read_study(options.recipe, **changes)
        if options.arm is None:
            take_lesson(study)
            return
        if options.arm not in study.rows:
            raise ValueError(f"There is no arm {options.arm!r}; there are {', '.join(study.rows)}.")
        train_run(study, options.arm, options.seed)
        evaluate_run(study, options.arm, options.seed, options.split)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
