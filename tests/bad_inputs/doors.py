"""All doors, and the public names that they have to cover."""

import ast
from collections.abc import Iterator
from pathlib import Path

from bad_inputs import (  # noqa: F401 (each adds its doors)
    benchmarks,
    boxes,
    captures,
    chatting,
    commands,
    comparing,
    conversion,
    drawings,
    evaluating,
    inputs,
    loading,
    proposing,
    pseudo_stores,
    reader_arguments,
    recipes,
    regions,
    running,
    samples,
    scenes,
    sessions,
    stores,
    supervising,
    training,
    videos,
)
from bad_inputs.cases import DOORS

__all__ = ["DOORS", "NO_DOOR", "list_commands", "list_public_names"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ide3d", "modeling_ide3d", "processing", "trainer")

# Public names without a door of their own: why, or which door covers them.
NO_DOOR = {
    "processing.chats.ChatDiagnosis": "what the doctor of chats returns",
    "processing.chats.ChatFinding": "what the doctor of chats returns",
    "processing.benchmarks.FEATURES": "a table of columns",
    "processing.benchmarks.MODES": "a table of names",
    "processing.benchmarks.Requirements": "what `requirements_for` returns",
    "processing.benchmarks.TASKS": "a table of benchmarks",
    "processing.benchmarks.Task": "rows of the table of benchmarks",
    "processing.benchmarks.doctor.Diagnosis": "what the doctor returns",
    "processing.benchmarks.doctor.Finding": "what the doctor returns",
    "processing.benchmarks.doctor.SplitState": "what the doctor returns",
    "processing.captures.Capture": "what `find_capture` returns; door `captures`",
    "processing.captures.CaptureState": "what `describe_capture` returns",
    "processing.captures.FORMATS": "a table of formats",
    "processing.captures.describe_capture": "takes a capture that `list_captures` found; door `commands`, `ide3d captures`",
    "processing.proposals.RegionProposals": "what a proposer returns; door `finding in pictures`",
    "processing.proposals.RegionProposer": "a protocol",
    "processing.rooms.TYPES": "a table of question types",
    "processing.rooms.furnished.MeshPiece": "what `read_catalogue` returns",
    "processing.rooms.furnished.cast_room": "takes the table of a room that we built",
    "processing.rooms.furnished.furnish": "takes what `read_catalogue` returns",
    "processing.rooms.furnished.render_room": "takes a room that we built",
    "processing.rooms.furnished.room_table": "takes a room that we built",
    "processing.rooms.questions.Baselines": "takes rendered rooms; door `rooms`",
    "processing.rooms.questions.SceneFacts": "takes rendered rooms; door `rooms`",
    "processing.rooms.questions.ask_questions": "takes the facts of rendered rooms; door `rooms`",
    "processing.rooms.render.Rendering": "what the renderer returns",
    "processing.rooms.render.pinhole_view": "takes the cameras of a rendered room",
    "processing.rooms.render.primitive_table": "takes a room that we built",
    "processing.rooms.render.render": "takes a room that we built",
    "processing.rooms.scene.Room": "what we build",
    "processing.rooms.scene.RoomObject": "what we build",
    "processing.rooms.scene.STYLES": "a table of styles",
    "processing.rooms.scene.Style": "rows of the table of styles",
    "processing.rooms.scene.build_room": "takes a style and a generator of ours; door `rooms`",
    "modeling_ide3d.auxiliary.GeometricValidator": "built from a config; doors `GeometrySupervision`, `training arguments`",
    "modeling_ide3d.auxiliary.GeometricValidatorConfig": "door `GeometrySupervision`",
    "modeling_ide3d.auxiliary.GeometricValidatorOutput": "what a head returns",
    "modeling_ide3d.auxiliary.IDE3DForConditionalGenerationWithGeometry": "doors `model.forward`, `training arguments`",
    "modeling_ide3d.auxiliary.IDE3DGeometryOutputWithPast": "what the model returns",
    "modeling_ide3d.auxiliary.TeacherProjector": "built from a config; door `GeometrySupervision`",
    "modeling_ide3d.auxiliary.TeacherProjectorConfig": "door `GeometrySupervision`, `teacher_size`",
    "trainer.data.BenchmarkDataset": "doors `benchmark readers`, `recipes`",
    "trainer.data.RegionSource": "a type",
    "trainer.data.SceneRegions": "takes a `PosedVideo`; doors `regions`, `evaluation runner`",
    "trainer.loop.StreamCollator": "takes a stream of ours; doors `files of chats`, `IDE3DDataCollator`",
    "trainer.loop.MixtureDataset": "door `recipes`",
    "trainer.loop.MixtureSampler": "door `recipes`",
    "trainer.loop.add_adapters": "door `recipes`, `lora_rank`",
    "trainer.loop.build_benchmark_mixture": "door `recipes`",
    "trainer.loop.merge_adapters": "takes a model that we wrapped",
    "trainer.evaluation.METRICS": "a table of names",
    "trainer.supervision.find_layout": "door `GeometrySupervision`",
    "trainer.teachers.ExtractionReport": "what the extraction returns",
    "trainer.teachers.GeometryReport": "what the extraction returns",
    "trainer.teachers.GeometrySource": "a protocol",
    "trainer.teachers.PatchTeacher": "a base class",
    "trainer.teachers.SceneState": "what `examine_store` returns",
    "trainer.teachers.StoreDiagnosis": "what `examine_store` returns",
    "trainer.teachers.Teacher": "a protocol",
    "trainer.session.FollowedObject": "what a session returns",
    "trainer.session.FoundObjects": "what a session returns",
    "trainer.session.SaidBoxes": "what a session returns",
    "trainer.session.FoundRegion": "what a session returns",
    "trainer.session.SceneAnswer": "what a session returns",
    "trainer.nano.MentionTrainer": "door `training arguments`",
    "trainer.nano.build_nano_config": "takes a processor of ours; door `recipes`",
    "trainer.nano.build_nano_model": "takes a config of ours; door `IDE3DConfig`",
    "trainer.nano.build_nano_processor": "takes texts of ours; door `recipes`",
    "trainer.nano.name_cells": "a lesson; door `recipes`",
    "trainer.nano.read_regions": "a lesson; door `recipes`",
    "trainer.nano.search_by_words": "a lesson; door `recipes`",
    "trainer.planning.Placement": "door `recipes`, `planned_processes`",
    "trainer.planning.StepEstimate": "what the plan returns",
    "trainer.planning.estimate_step": "takes a model and a batch of ours; door `recipes`, dry run",
    "trainer.planning.make_batch": "takes a config; door `recipes`, dry run",
    "trainer.evaluation.probes.ProbeSettings": "door `commands`, `ide3d probe`",
    "trainer.evaluation.probes.probe_model": "door `commands`, `ide3d probe`",
}
# Packages whose names take tensors that our own code has checked at another door.
NO_DOORS = {
    "trainer.geometry": "pure functions of tensors that `PosedVideo` and the collator have checked",
    "trainer.losses": "modules on tensors that the collator has checked",
    "trainer.evaluation.probes": "takes tokens and scenes that a probe has read; door `commands`, `ide3d probe`",
}


def list_public_names() -> Iterator[str]:
    """Yield every public name as package.name, from the stubs and the `__all__` of packages without one."""
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            folder = init.parent
            module = ".".join(folder.relative_to(ROOT).parts)
            if "commands" in module or "metrics." in module:
                continue
            for name in sorted(_names_of(folder)):
                yield f"{module}.{name}"


def _names_of(folder: Path) -> set[str]:
    stub = folder / "__init__.pyi"
    if stub.exists():
        nodes = ast.parse(stub.read_text()).body
        return {
            alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
        }
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def list_commands() -> Iterator[str]:
    """Yield every command of `ide3d`, as one types it."""
    import typer
    from click import Group

    from ide3d.command import app

    def walk(command: object, words: tuple[str, ...]) -> Iterator[str]:
        if isinstance(command, Group) or hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, (*words, name))
        else:
            yield " ".join(words)

    yield from walk(typer.main.get_command(app), ())


def uncovered_names() -> list[str]:
    """Return the public names that no door covers and for which no reason is given."""
    homes = {name.rpartition(".")[2] for opened in DOORS.values() for name in opened.covers}
    given = {name.rpartition(".")[2] for name in NO_DOOR}
    return [
        name
        for name in list_public_names()
        if name.rpartition(".")[0] not in NO_DOORS
        and name.rpartition(".")[2] not in homes
        and name.rpartition(".")[2] not in given
    ]
