"""Griffe extension: the blocks of our docstrings that Google style does not know, as lists and examples."""

import re

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
