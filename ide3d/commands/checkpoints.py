"""Commands about weights: `convert`, `export`, `push`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ide3d.commands.errors import UsageError, command
from ide3d.commands.options import speak

__all__ = ["register"]

Target = Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "convert", "ide3d convert path/to/original path/to/converted")(convert)
    command(app, "export", "ide3d export outputs/run/checkpoint-500 outputs/run/export")(export)
    command(app, "push", "ide3d push outputs/run/export your-name/3d-ide-rooms --dry-run outputs/push")(push)


def convert(
    original: Annotated[
        Path, typer.Argument(metavar="ORIGINAL", help="Folder with config.json and weights.", show_default=False)
    ],
    target: Target,
    back: Annotated[
        bool, typer.Option("--back", help="Write a converted checkpoint in its original layout again.")
    ] = False,
    max_shard_size: Annotated[
        str | None,
        typer.Option(help='Bytes of a weight file, such as "2GB". Default: as the largest source file, up to 5GB.'),
    ] = None,
    vision_tower: Annotated[
        Path | None, typer.Option(help="SigLIP folder, where the original holds no vision tower.")
    ] = None,
    ignore_position_encoding: Annotated[
        bool,
        typer.Option(
            "--ignore-position-encoding",
            help="Convert although it was trained with an encoding of 3D world positions, which this model lacks.",
        ),
    ] = False,
) -> None:
    """Convert an original checkpoint, or restore it.

    Originals are LLaVA-Video, Video-3D-LLM, 3DRS and 3D-IDE in the LLaVA-Qwen layout. Needs the original's folder with
    its tokenizer, and room for a copy; memory for one weight file is enough. With --back, ORIGINAL is a folder that a
    conversion wrote. The target must not exist, or be empty.
    """
    speak()
    if back:
        if vision_tower is not None or ignore_position_encoding:
            raise UsageError("--vision-tower and --ignore-position-encoding are for the way there, not for --back.")
        from modeling_ide3d.conversion import restore_checkpoint

        restore_checkpoint(original, target)
        typer.echo(f"The original checkpoint is in {target}")
        return
    from modeling_ide3d.conversion import convert_checkpoint

    report = convert_checkpoint(
        original,
        target,
        max_shard_size=max_shard_size,
        vision_tower=vision_tower,
        ignore_position_encoding=ignore_position_encoding,
    )
    typer.echo(report)


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder checkpoint-N of a training, or its output folder, whose last checkpoint is taken.",
            show_default=False,
        ),
    ],
    target: Target,
    processor: Annotated[
        str | None, typer.Option(help="Folder or Hub name of the processor. Default: beside the weights.")
    ] = None,
    auto_model: Annotated[
        Literal["generate", "base"],
        typer.Option(help="What `AutoModel` gives: the model that answers, or the bare one for serving engines."),
    ] = "generate",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Type of the saved weights. Default: that of the checkpoint."),
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Bytes of a weight file, at most.")] = "5GB",
) -> None:
    """Export the inference model of a checkpoint.

    The export loads where nobody has this package. Needs the checkpoint and its processor. Training heads are dropped,
    adapters are merged. An existing target is replaced only if it is an earlier export.
    """
    speak()
    import torch

    from trainer.export import export_checkpoint

    folder = export_checkpoint(
        checkpoint,
        target,
        processor=processor,
        auto_model=auto_model,
        dtype=None if dtype is None else getattr(torch, dtype),
        max_shard_size=max_shard_size,
    )
    typer.echo(folder)


def push(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder that an export wrote.", show_default=False)],
    repo_id: Annotated[
        str, typer.Argument(metavar="REPO_ID", help="your-name/model-name on the Hub.", show_default=False)
    ],
    dry_run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write what would be pushed to this folder, push nothing.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Output folder of an evaluation whose scores go along; once for each."),
    ] = None,
) -> None:
    """Push an export to the Hub.

    The quick start of its model card then loads it from there. Needs a login that may write (`hf auth login`);
    --dry-run needs no network.
    """
    speak()
    from trainer.push import push_export

    typer.echo(push_export(export, repo_id, dry_run, private, results or ()))
