"""Public door to `modeling_ide3d.conversion.restore`, also `python -m modeling_ide3d.restore_llava_qwen`."""

from modeling_ide3d.conversion.restore import main, restore_checkpoint

__all__ = ["restore_checkpoint"]

if __name__ == "__main__":
    main()
