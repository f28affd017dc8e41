"""Public door to `modeling_ide3d.conversion.convert`, also `python -m modeling_ide3d.convert_llava_qwen`."""

from modeling_ide3d.conversion.convert import ConversionReport, convert_checkpoint, main

__all__ = ["ConversionReport", "convert_checkpoint"]

if __name__ == "__main__":
    main()
