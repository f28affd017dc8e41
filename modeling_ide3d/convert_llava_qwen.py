"""Public door to `modeling_ide3d.conversion.convert`; as a program the same as `ide3d convert`."""

import runpy
import sys

from modeling_ide3d.conversion.convert import ConversionReport, convert_checkpoint

__all__ = ["ConversionReport", "convert_checkpoint"]

if __name__ == "__main__":
    sys.argv[1:1] = ["convert"]
    # By name: no package imports the one above all of them.
    runpy.run_module("ide3d", run_name="__main__", alter_sys=True)
