"""Public door to `modeling_ide3d.conversion.restore`; as a program the same as `ide3d convert --back`."""

from modeling_ide3d.conversion.restore import restore_checkpoint

__all__ = ["restore_checkpoint"]

if __name__ == "__main__":
    from ide3d.command import run_as

    run_as("convert", "--back")
