"""Commands about training: `train`, `plan`, `teachers`, `geometry`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ide3d.commands.errors import UsageError, command
from ide3d.commands.options import Frames, Protocol, speak

if TYPE_CHECKING:
    from trainer import IDE3DTrainingArguments
    from trainer.recipes import DataArguments, ModelArguments

__all__ = ["register"]

Recipe = Annotated[
    Path | None, typer.Argument(metavar="RECIPE", help="YAML file of lines `argument: value`.", show_default=False)
]
ListArguments = Annotated[
    bool, typer.Option("--list-arguments", help="List every argument that a recipe or the command line may set.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(
        app, "train", "ide3d train examples/recipes/rooms_nano.yaml --max_steps 50", takes_any=True, shares_work=True
    )(train)
    command(app, "plan", "ide3d plan examples/recipes/ide3d_7b.yaml --per_device_train_batch_size 2", takes_any=True)(
        plan
    )
    command(
        app,
        "teachers",
        "ide3d teachers --teacher facebook/dinov2-base --data-dir data --output-dir features --grid 384 14 2",
        shares_work=True,
    )(teachers)
    command(
        app,
        "geometry",
        "ide3d geometry --source depth-anything/Depth-Anything-V2-Small-hf --data-dir data --output-dir geometry",
        shares_work=True,
    )(geometry)


def _read(
    recipe: Path | None, words: list[str], list_arguments: bool
) -> tuple["ModelArguments", "DataArguments", "IDE3DTrainingArguments"]:
    """Arguments of a recipe; wrong ones are wrong usage."""
    speak()
    from trainer.recipes.arguments import build_parser, read_recipe

    if list_arguments:
        typer.echo(build_parser(prog="ide3d train", usage="%(prog)s RECIPE [--argument value ...]").format_help())
        raise typer.Exit()
    if recipe is None:
        raise UsageError("Missing argument 'RECIPE'.")
    if not recipe.is_file():
        raise FileNotFoundError(f"There is no recipe {recipe}. It is a YAML file of lines `argument: value`.")
    try:
        return read_recipe(recipe, words)
    except ValueError as error:
        raise UsageError(str(error)) from error


def train(ctx: typer.Context, recipe: Recipe = None, list_arguments: ListArguments = False) -> None:
    """Train by a recipe, evaluate, and export.

    Needs a recipe, and what it names: rooms are rendered, benchmarks and checkpoints must be there. Words behind the
    recipe, `--argument value`, win over the file. A folder that holds a checkpoint is resumed; the export lies in
    `output_dir/export`. `accelerate launch -m ide3d train RECIPE` trains in several processes.
    """
    model, data, args = _read(recipe, ctx.args, list_arguments)
    from trainer.recipes.plan import dry_run
    from trainer.recipes.run import run_recipe

    if model.dry_run:
        typer.echo(dry_run(model, data, args).as_text())
        return
    folder = run_recipe(model, data, args)
    if args.process_index == 0:
        typer.echo(folder)


def plan(ctx: typer.Context, recipe: Recipe = None, list_arguments: ListArguments = False) -> None:
    """Say what a training step of a recipe takes.

    Counts parameters, memory and operations. Needs a recipe, but no GPU, no weights and no data: nothing is downloaded
    or trained. Words behind the recipe, `--argument value`, win over the file. Experimental.
    """
    arguments = _read(recipe, [*ctx.args, "--dry_run"], list_arguments)
    from trainer.recipes.plan import dry_run

    typer.echo(dry_run(*arguments).as_text())


def teachers(
    teacher: Annotated[
        str,
        typer.Option(
            help="vggt, depth_anything_3, vggt_sliced (the original's files), a folder of features, or a vision "
            "backbone of Transformers by folder or name.",
            show_default=False,
        ),
    ],
    data_dir: Annotated[Path, typer.Option(help="Folder in the public layout.", show_default=False)],
    output_dir: Annotated[Path, typer.Option(help="Folder that gets a file for each scene.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub name of the model that will be trained: its token grid.")
    ] = None,
    grid: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="PIXELS PATCH STRIDE", help="Token grid in numbers, such as 384 14 2."),
    ] = None,
    scene_ids: Annotated[
        list[str] | None, typer.Option(help="Scenes such as scannet/scene0000_00. Default: all of the folder.")
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Only scenes of this split of EmbodiedScan.")
    ] = None,
    frames: Annotated[Frames, typer.Option(help="Which frames of a scene, as in training.")] = "uniform",
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of a scene, at most, as in training.")] = 32,
    protocol: Annotated[Protocol, typer.Option(help="How patches are pooled to tokens.")] = "clean",
    weights: Annotated[
        str | None, typer.Option(help="Weights of vggt and depth_anything_3: Hub name or path.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, where no model card states it.")] = None,
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="HEIGHT WIDTH", help="Input of a Transformers backbone in pixels."),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Layer of a backbone. Default: the last one.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames at a time of a Transformers backbone.")] = 8,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Type that the teacher computes in.")
    ] = "float32",
) -> None:
    """Store the features of a frozen teacher.

    They are pooled to the token grid of a model, one file for each scene. Needs scenes in the public layout, and
    either --model or --grid. The same command goes on where it was stopped; `accelerate launch -m ide3d teachers ...`
    runs it in several processes.
    """
    if (model is None) == (grid is None):
        raise UsageError("Give one of the options --model and --grid.")
    try:
        import torch

        from processing import IDE3DProcessor, TokenGrid
        from trainer.teachers import extract_features, list_scenes, load_teacher
    except ImportError as error:  # such as of pyarrow, where a teacher's package has brought an old NumPy
        raise ImportError(
            f"{error}. Did the package of a teacher replace one that this needs? Give extraction an environment of "
            "its own, see docs/teachers.md; training with stored features does not need the teacher's package."
        ) from error

    state = _join_and_speak()
    scenes = list_scenes(data_dir, split=split, scene_ids=scene_ids or ())
    loaded = load_teacher(
        teacher,
        weights=weights,
        licence=licence,
        data_dir=data_dir,
        image_size=image_size,
        layer=layer,
        batch_size=batch_size,
        device=state.device,
        dtype=getattr(torch, dtype),
        protocol=protocol,
    )
    if grid is not None:
        token_grid = TokenGrid(*grid)
    else:
        processor = IDE3DProcessor.from_pretrained(model)
        token_grid = TokenGrid.of(processor)
    report = extract_features(loaded, token_grid, data_dir, output_dir, scenes, frames=frames, num_frames=num_frames)
    if state.is_main_process:
        typer.echo(f"{loaded.name}, licence {loaded.licence}\n{output_dir}: {report}")


def _join_and_speak() -> Any:
    """Join the processes of a launcher; the main one alone logs progress."""
    import logging

    from trainer.processes import join_processes

    state = join_processes()
    speak()
    if not state.is_main_process:
        logging.getLogger("trainer").setLevel(logging.WARNING)
    return state


def geometry(
    source: Annotated[
        str,
        typer.Option(
            help="A depth network of Transformers by folder or name, or files in --folder: arrays or colmap.",
            show_default=False,
        ),
    ],
    data_dir: Annotated[Path, typer.Option(help="Folder in the public layout.", show_default=False)],
    output_dir: Annotated[Path, typer.Option(help="Folder that gets a file for each scene.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option(help="Folder of arrays or reconstructions, one a scene, by its id.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of what made the arrays.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of what made the arrays.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, where no model card states it.")] = None,
    alignment: Annotated[
        Literal["metric", "scale", "affine", "inverse"] | None,
        typer.Option(help="Alignment that the depth needs. Default: as is known for a network; arrays need it."),
    ] = None,
    scene_ids: Annotated[
        list[str] | None, typer.Option(help="Scenes such as scannet/scene0000_00. Default: all of the folder.")
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Only scenes of this split of EmbodiedScan.")
    ] = None,
    frames: Annotated[Frames, typer.Option(help="Which frames of a scene, as in training.")] = "uniform",
    num_frames: Annotated[int, typer.Option(min=1, help="Frames of a scene, at most, as in training.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames at a time of a network.")] = 8,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Type that a network computes in.")
    ] = "float32",
) -> None:
    """Store pseudo geometry: depth and poses without a sensor.

    Needs the pictures of scenes in the public layout, and a source. The same command goes on where it was stopped;
    `ide3d doctor OUTPUT` says how much of it can be used, and `accelerate launch -m ide3d geometry ...` runs it in
    several processes.
    """
    import torch

    from trainer.teachers import extract_geometry, list_scenes, load_geometry_source

    state = _join_and_speak()
    scenes = list_scenes(data_dir, split=split, scene_ids=scene_ids or ())
    loaded = load_geometry_source(
        source,
        folder=folder,
        name=name,
        version=version,
        licence=licence,
        alignment=alignment,
        batch_size=batch_size,
        device=state.device,
        dtype=getattr(torch, dtype),
    )
    report = extract_geometry(loaded, data_dir, output_dir, scenes, frames=frames, num_frames=num_frames)
    if state.is_main_process:
        typer.echo(f"{loaded.name}, licence {loaded.licence}, alignment {loaded.alignment}\n{output_dir}: {report}")
