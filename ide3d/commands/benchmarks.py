"""Commands about measuring: `evaluate`, `compare`, `clicks`, `probe`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ide3d.commands.errors import UsageError, command
from ide3d.commands.options import (
    GIBIBYTE,
    Data,
    Frames,
    MaxMemory,
    Mode,
    Numbers,
    Protocol,
    SkipInvalidPoses,
    Task,
    speak,
)

__all__ = ["register"]

RoomSplit = Literal["train", "validation", "test"]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    example = "ide3d evaluate --model path/to/export --task scanqa --data data --protocol paper"
    command(app, "evaluate", example, shares_work=True)(evaluate)
    command(app, "compare", "ide3d compare outputs/sdpa outputs/eager --tolerance 0.5")(compare)
    command(app, "clicks", "ide3d clicks --data data --output clicks.json --num-frames 32")(clicks)
    command(app, "probe", "ide3d probe --model path/to/export --num-rooms 200")(probe)


def evaluate(
    model: Annotated[
        str,
        typer.Option(help="Folder or Hub name of a model or a PEFT adapter, with its processor.", show_default=False),
    ],
    task: Annotated[Task, typer.Option(help="Benchmark.", show_default=False)],
    data: Data,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="Whether the model is given the benchmark's boxes, or opens frames alone. Default: proposals for "
            "tasks with boxes, rgb_only for questions."
        ),
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="Protocol of prompts, regions and the main score.")] = "clean",
    split: Annotated[
        str | None, typer.Option(help="Split of the benchmark. Default: the one that papers report.")
    ] = None,
    boxes: Annotated[
        Literal["gt", "pred"] | None, typer.Option(help="Candidates of grounding. Default: the original's choice.")
    ] = None,
    regions: Annotated[Literal["depth", "poses"], typer.Option(help="What makes masks of 3D boxes.")] = "depth",
    finding: Annotated[
        Literal["regions", "words"],
        typer.Option(help="How rgb_only finds objects: by regions that the model proposes, or its boxes in words."),
    ] = "regions",
    numbers: Annotated[
        Numbers | None,
        typer.Option(help="How boxes in words write measures. Default: as the model's tokenizer tells."),
    ] = None,
    clicks: Annotated[
        Path | None, typer.Option(help="File of clicks on what rgb_only describes; `ide3d clicks` makes one.")
    ] = None,
    frames: Annotated[Frames, typer.Option(help="Which frames of a scene are shown.")] = "uniform",
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames, at most. Default: as in training.")] = None,
    skip_invalid_poses: SkipInvalidPoses = False,
    scenes: Annotated[list[str] | None, typer.Option(help="Only these scenes. Default: all of the split.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions of a scene at a time, at most.")] = 64,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer. Default: as the task has it.")
    ] = None,
    max_memory: MaxMemory = 4.0,
    dtype: Annotated[
        str, typer.Option(help='Type of the weights, such as "float16"; "auto" is that of the files.')
    ] = "auto",
    attention: Annotated[str | None, typer.Option(help="Attention, such as sdpa or flash_attention_2.")] = None,
    variant: Annotated[str | None, typer.Option(help='Variant of the metric, such as "ptb".')] = None,
    meteor: Annotated[
        bool | None,
        typer.Option("--meteor/--no-meteor", help="Whether to score METEOR. Default: if there is Java."),
    ] = None,
    answer_only: Annotated[
        bool, typer.Option("--answer-only", help="Leave scores out; the same command without it scores the answers.")
    ] = False,
    dataset_id: Annotated[
        str | None,
        typer.Option(help="Name of the benchmark on the Hub, for .eval_results. Default: known for VSI-Bench alone."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="Folder of answers, results and report. Default: outputs/evaluation/TASK-SPLIT-PROTOCOL, with the "
            "mode where it is not the task's default."
        ),
    ] = None,
) -> None:
    """Answer a benchmark, score it, and write a report.

    Needs the benchmark in the public layout (`ide3d doctor` says what is there). The same command goes on where it was
    stopped; `accelerate launch -m ide3d evaluate ...` runs it in several processes.
    """
    speak()
    from processing.benchmarks import TASKS
    from processing.benchmarks.readers.requirements import list_modes
    from trainer.evaluation.results import EvaluationSettings
    from trainer.evaluation.runner import run_evaluation

    chosen = split or TASKS[task].eval_split
    of_mode = "" if mode in (None, list_modes(task, frames)[0]) else f"-{mode}"
    results = run_evaluation(
        EvaluationSettings(
            model=model,
            task=task,
            data=str(data),
            mode=mode,
            protocol=protocol,
            split=split,
            boxes=boxes,
            regions=regions,
            finding=finding,
            numbers=numbers,
            clicks=None if clicks is None else str(clicks),
            frames=frames,
            num_frames=num_frames,
            skip_invalid_poses=skip_invalid_poses,
            scenes=tuple(scenes) if scenes else None,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            max_memory=int(max_memory * GIBIBYTE),
            dtype=dtype,
            attention=attention,
            variant=variant,
            meteor=meteor,
            answer_only=answer_only,
            dataset_id=dataset_id,
            output=output or f"outputs/evaluation/{task}-{chosen}-{protocol}{of_mode}",
        )
    )
    if results is None:  # another process says it
        return
    if answer_only:
        typer.echo(f"{task}: {results['num_samples']} answers, {results['mode']}, no scores")
        return
    scores, name = results["scores"][protocol], results["main_score"]
    low, high = scores["bands"][name]
    band = " (too few scenes for a band)" if low is None else f" (95 % band {low:.1f} to {high:.1f})"
    typer.echo(f"{task} {name}: {scores[name]:.2f}{band}, {protocol}, {results['mode']}")


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Output folders of `ide3d evaluate`.", show_default=False)
    ],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Difference that still counts as the same, in points of the scores.")
    ] = 1.0,
    differing: Annotated[
        list[str] | None,
        typer.Option(metavar="FACT", help="Fact about what was asked that may differ, such as mode; once for each."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for everything, scores of types too, JSON.")] = None,
) -> None:
    """Compare finished evaluations with the first one.

    Needs two or more folders that `ide3d evaluate` wrote about the same samples. Lists which facts of the runs differ.
    Differences of scores have intervals over scenes, paired, and a verdict: the same within the tolerance, one is
    better, or cannot tell. Writes Markdown to stdout.
    """
    speak()
    from trainer.evaluation.run_comparison import compare_runs

    found = compare_runs(folders, tolerance, differing or ())
    typer.echo(found.as_text())
    if output is not None:
        from processing.writing import write_json

        write_json(output, found.as_dict())


def clicks(
    data: Data,
    output: Annotated[Path, typer.Option(help="File to write, JSON.", show_default=False)],
    split: Annotated[str | None, typer.Option(help="Split of Scan2Cap. Default: the one that papers report.")] = None,
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of a scene, at most; those of the evaluation.")] = 32,
    regions: Annotated[
        Literal["depth", "poses"], typer.Option(help="What says where a box is seen; poses know nothing of occlusion.")
    ] = "depth",
    skip_invalid_poses: SkipInvalidPoses = False,
    scenes: Annotated[list[str] | None, typer.Option(help="Only these scenes. Default: all of the split.")] = None,
) -> None:
    """Write clicks on the boxes that Scan2Cap gives.

    `ide3d evaluate --mode rgb_only` describes by them. Needs boxes, poses and depth, which the model is then not
    shown. A file of clicks by people has the same form.
    """
    speak()
    from trainer.evaluation.clicks import make_clicks

    made = make_clicks(
        data,
        output,
        split=split,
        num_frames=num_frames,
        regions=regions,
        skip_invalid_poses=skip_invalid_poses,
        scenes=tuple(scenes) if scenes else None,
    )
    there = sum(mark is not None for mark in made.marks.values())
    typer.echo(f"{output}: clicks on {there} of {len(made.marks)} objects")


def probe(
    model: Annotated[
        str, typer.Option(help="Folder or Hub name of a model of ours or of a vision tower.", show_default=False)
    ],
    data: Annotated[Path | None, typer.Option(help="Folder in the public layout, instead of rooms.")] = None,
    scenes: Annotated[
        list[str] | None, typer.Option(help="Scenes of the folder, such as scannet/scene0000_00. Default: all.")
    ] = None,
    skip_invalid_poses: SkipInvalidPoses = False,
    num_rooms: Annotated[int, typer.Option(min=1, help="Number of rendered rooms, where no folder is given.")] = 200,
    split: Annotated[RoomSplit, typer.Option(help="Split of the rooms.")] = "test",
    rooms_seed: Annotated[int, typer.Option(help="Family of rooms.")] = 0,
    room_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of a room's frames in pixels. Default: that of the input, at most 126."),
    ] = None,
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of a scene, at most.")] = 4,
    layers: Annotated[
        list[str] | None, typer.Option(help="Layers such as vision.6 language.14. Default: a few, evenly spread.")
    ] = None,
    read_by_losses: Annotated[
        list[str] | None,
        typer.Option(help="Layers that geometry losses of the training read; the option alone says that none is."),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Probe the same architecture without its training.")
    ] = False,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Input of a vision tower in pixels. Default: its own.")
    ] = None,
    tokens_per_scene: Annotated[int, typer.Option(min=1, help="Tokens of a scene that are kept, at most.")] = 512,
    dtype: Annotated[
        str, typer.Option(help='Type of the weights, such as "float16"; "auto" is that of the files.')
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of all that is sampled.")] = 0,
    output: Annotated[str, typer.Option(help="File of the results, JSON.")] = "outputs/probes.json",
) -> None:
    """Measure what a model's tokens know of geometry.

    Needs at least six scenes with depth and poses that the model was not trained on; rooms are rendered where no
    folder is given. The control are the layers that no geometry loss reads.
    """
    speak()
    from trainer.evaluation.probes.run import ProbeSettings, describe_probes, probe_model

    if data is None and (scenes or skip_invalid_poses):
        raise UsageError("--scenes and --skip-invalid-poses belong to a folder: give it as --data.")
    result = probe_model(
        ProbeSettings(
            model=model,
            data=None if data is None else str(data),
            scenes=tuple(scenes) if scenes else None,
            skip_invalid_poses=skip_invalid_poses,
            num_rooms=num_rooms,
            split=split,
            rooms_seed=rooms_seed,
            room_size=room_size,
            num_frames=num_frames,
            layers=tuple(layers) if layers else None,
            read_by_losses=None if read_by_losses is None else tuple(filter(None, read_by_losses)),
            random_weights=random_weights,
            image_size=image_size,
            tokens_per_scene=tokens_per_scene,
            dtype=dtype,
            seed=seed,
            output=output,
        )
    )
    typer.echo(describe_probes(result))
