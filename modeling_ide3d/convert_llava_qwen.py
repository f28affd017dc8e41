"""Public door to `modeling_ide3d.conversion.convert`; as a program the same as `ide3d convert`."""

from modeling_ide3d.conversion.convert import ConversionReport, convert_checkpoint

__all__ = ["ConversionReport", "convert_checkpoint"]

if __name__ == "__main__":
    from ide3d.command import run_as

    run_as("convert")
