"""Griffe extensions: blocks of our docstrings that Google style does not know, and names of lazy packages."""

import ast
import re
from pathlib import Path

import griffe

BLOCK = re.compile(r"^( *)(Shape|Example):\n((?:\1 +.*\n?|\n)+)", re.MULTILINE)


def render_blocks(docstring: str) -> str:
    """The docstring with `Shape:` as a list of arguments, and `Example:` under the name that Griffe runs through."""

    def rewrite(block: re.Match) -> str:
        indent, title, body = block.groups()
        if title == "Example":
            return f"{indent}Examples:\n{body}"
        entries = re.sub(rf"^({indent} +)(\w[\w.]*|\*\*\w+): +", r"\1- `\2`: ", body, flags=re.MULTILINE)
        return f"{indent}Shape:\n{entries}"

    return BLOCK.sub(rewrite, docstring)


class ShapeBlocks(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """See `griffe.Extension.on_object`."""
        if obj.docstring is not None:
            obj.docstring.value = render_blocks(obj.docstring.value)


def read_stub(init: Path) -> list[str]:
    """Public names of a lazy package: what the stub beside its `__init__.py` imports under its own name."""
    stub = init.with_suffix(".pyi")
    if not stub.is_file():
        return []
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.asname == alias.name]


def read_public_names(init: Path) -> list[str]:
    """Public names of a package, lazy or with a list `__all__`."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    return read_stub(init)


class LazyPackages(griffe.Extension):
    """Gives a package whose `__init__.py` is lazy the names of its stub; without, its page would be empty."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        """See `griffe.Extension.on_package`."""
        self._export(pkg)

    def _export(self, module: griffe.Module) -> None:
        if module.is_init_module and module.exports is None:
            module.exports = read_stub(module.filepath) or None
        for inner in module.modules.values():
            if not inner.is_alias:
                self._export(inner)
