"""Functions of a checkout of the original, read from its files without importing its packages."""

import ast
import types
from pathlib import Path

__all__ = ["FILES", "read_original"]

# What is called: by file of the checkout (github.com/ChushanZhang/3D-IDE).
FILES = {
    "llava/video_utils.py": ("unproject",),
    "llava/utils.py": ("compute_cross_view_frame_pairs", "compute_batched_reprojection_mask"),
    "llava/model/geometric_loss.py": ("MultitaskLoss",),
}
LIBRARIES = {"torch", "numpy", "math", "typing", "dataclasses", "logging"}


def read_original(folder: Path) -> types.SimpleNamespace:
    """Return the functions of `FILES`; imports of other packages than `LIBRARIES` are left out.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file lacks a function.
    """
    found = {}
    for name, wanted in FILES.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{folder} must be a checkout of the original, with {', '.join(FILES)}.")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if _is_kept(node)]
        module = types.ModuleType(path.stem)
        exec(compile(tree, str(path), "exec"), module.__dict__)  # the file of the user's own checkout
        if missing := [each for each in wanted if not hasattr(module, each)]:
            raise ValueError(f"{path} lacks {missing}. Another version? Expected commit 0002655e.")
        found |= {each: getattr(module, each) for each in wanted}
    return types.SimpleNamespace(**found)


def _is_kept(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return all(each.name.partition(".")[0] in LIBRARIES for each in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in LIBRARIES
    return isinstance(node, (ast.FunctionDef, ast.ClassDef)) or (
        isinstance(node, ast.Assign) and isinstance(node.value, (ast.Constant, ast.Dict))
    )
