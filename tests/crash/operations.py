"""What writes: each operation with a start, its work, and what may stand on the disk at any moment of it."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from exporting import build_model as build_exported
from exporting import build_processor
from original_checkpoints import build_model as build_converted
from original_checkpoints import original_weights, write_pickled_source
from scene_models import build_scene_model, build_scene_processor
from training_samples import build_collator, build_model, make_grounding_sample, make_mixed_batch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from modeling_ide3d.conversion import convert_checkpoint, restore_checkpoint
from processing.benchmarks.export.pickle_free import export_pickle_free
from processing.benchmarks.export.rooms import export_rooms
from processing.token_grid import TokenGrid
from trainer import IDE3DTrainer, IDE3DTrainingArguments, export_inference_model
from trainer.evaluation import EvaluationSettings, run_evaluation
from trainer.loop.checkpoints import get_last_checkpoint, is_whole, list_checkpoints
from trainer.teachers import TransformersTeacher, extract_features

__all__ = ["NAMES", "Operation", "build_operations", "leftovers", "read_state"]

HIDDEN = re.compile(r"\..+\.[0-9a-f]{8}\.(unfinished|retired)")
STEPS, SCENES = 3, ("scannet/room0000_00", "scannet/room0001_00")
# Times of a run, which differ; and a file that only grows.
UNEQUAL = re.compile(r"checkpoint-\d+/(trainer_state\.json|training_args\.bin|rng_state\.pth|README\.md)")
ANSWERS = re.compile(r"answers\.\d{5}\.jsonl")


@dataclass(frozen=True)
class Operation:
    """Work that writes into a folder.

    Args:
        name: Name in the table.
        start: Folder as it is before; copied for each run.
        work: Work on a copy of `start`.
        is_one: Whether the output is one thing, old or new as a whole; otherwise each file is.
    """

    name: str
    start: Path
    work: Callable[[Path], object]
    is_one: bool = True


def read_state(folder: Path) -> dict[str, str]:
    """Return a digest of each file that a user sees; of checkpoints, of whole ones alone."""
    halves = {path for path in list_checkpoints(folder) if not is_whole(path)}
    state = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        is_hidden = any(HIDDEN.fullmatch(part) for part in Path(name).parts)
        if is_hidden or not path.is_file() or UNEQUAL.fullmatch(name) or halves & set(path.parents):
            continue
        state[name] = hashlib.sha256(_content(path)).hexdigest()
    return state


def _content(path: Path) -> bytes:
    if not ANSWERS.fullmatch(path.name):
        return path.read_bytes()
    # Whole lines are answers; what stands behind the last is asked again.
    answers = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    if len({answer["id"] for answer in answers}) < len(answers):
        raise AssertionError(f"{path} holds an answer twice.")
    return b"answers"


def leftovers(folder: Path) -> list[str]:
    """Return the hidden names that a writer left."""
    return [path.name for path in folder.rglob(".*") if HIDDEN.fullmatch(path.name)]


def _train(folder: Path) -> None:
    samples = [*make_mixed_batch(), make_grounding_sample(2, seed=7)]
    args = IDE3DTrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="steps",
        save_steps=1, save_total_limit=2, logging_steps=1, max_steps=STEPS, per_device_train_batch_size=2,
        pair_mode="random", learning_rate=3e-3, logging_nan_inf_filter=False,
    )  # fmt: skip
    trainer = IDE3DTrainer(build_model(), args, train_dataset=samples, data_collator=build_collator())
    last = get_last_checkpoint(folder)
    if last is None or not last.endswith(f"-{STEPS}"):
        trainer.train(resume_from_checkpoint=last)


def _evaluate(model: Path, data: Path, folder: Path) -> None:
    settings = EvaluationSettings(
        model=str(model), task="scanqa", data=str(data), output=str(folder / "run"), meteor=False, max_new_tokens=2,
        batch_size=2, scenes=("scannet/room0001_00",),
    )  # fmt: skip
    run_evaluation(settings)


def _save_teacher(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return folder


def _export(place: Path) -> list[Operation]:
    processor, old = build_processor(), place / "old"
    exported = build_exported(processor)
    export_inference_model(build_exported(processor, seed=1), processor, old / "model")

    def work(folder: Path) -> None:
        export_inference_model(exported, processor, folder / "model", max_shard_size="60KB")

    return [Operation("export", _empty(place), work), Operation("export over an old one", old, work)]


def _convert(place: Path) -> list[Operation]:
    source = write_pickled_source(place / "source", original_weights(build_converted()))
    convert_checkpoint(source, place / "converted")
    start = _empty(place)
    return [
        Operation("convert", start, lambda folder: convert_checkpoint(source, folder / "model")),
        Operation("restore", start, lambda folder: restore_checkpoint(place / "converted", folder / "model")),
    ]


def _train_and_resume(place: Path) -> list[Operation]:
    return [Operation("train and resume", _empty(place), _train, is_one=False)]


def _evaluate_and_extract(place: Path) -> list[Operation]:
    processor, model, rooms = build_scene_processor(), place / "model", _rooms(place)
    build_scene_model(processor).save_pretrained(model)
    processor.save_pretrained(model)
    teacher, grid = TransformersTeacher(_save_teacher(place / "teacher")), TokenGrid(72, 14, 2)

    def extract(folder: Path) -> None:
        extract_features(teacher, grid, rooms, folder / "features", SCENES, num_frames=2)

    return [
        Operation("evaluate", _empty(place), partial(_evaluate, model, rooms), is_one=False),
        Operation("extract features", _empty(place), extract, is_one=False),
    ]


def _export_data(place: Path) -> list[Operation]:
    def work(folder: Path) -> None:
        export_rooms(folder / "rooms", num_scenes=1, image_size=32, num_frames=1)

    return [
        Operation("export rooms", _empty(place), work),
        Operation("export pickle-free", _rooms(place), export_pickle_free, is_one=False),
    ]


def _empty(place: Path) -> Path:
    folder = place / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def _rooms(place: Path) -> Path:
    return export_rooms(place / "rooms", num_scenes=1, image_size=48, num_frames=2)


_BUILDERS = {
    _export: ("export", "export over an old one"),
    _convert: ("convert", "restore"),
    _train_and_resume: ("train and resume",),
    _evaluate_and_extract: ("evaluate", "extract features"),
    _export_data: ("export rooms", "export pickle-free"),
}
NAMES = tuple(name for names in _BUILDERS.values() for name in names)


def build_operations(place: Path, names: Collection[str] = NAMES) -> Iterator[Operation]:
    """Make what the named operations start from, inside `place`, and yield them."""
    for number, (build, made) in enumerate(_BUILDERS.items()):
        if set(made) & set(names):
            own = place / str(number)
            own.mkdir()
            yield from (operation for operation in build(own) if operation.name in names)
