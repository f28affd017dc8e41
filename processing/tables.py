"""Tables of words and numbers that read well in a terminal and are Markdown."""

from collections.abc import Sequence

__all__ = ["NOTHING", "format_band", "format_number", "format_percent", "markdown_table"]

NOTHING = "-"  # cell of a number that there is not
TOO_FEW = "too few"  # cell of a band: there are too few scenes for one


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """Return a Markdown table with columns of equal width, without a newline at the end.

    Args:
        head: Titles of the columns.
        rows: Cells of each row, written by `str`. Bars are escaped, line breaks become spaces.
        align: "l" or "r" for each column from the first; "l" for those that are not named.

    Raises:
        ValueError: If a row has another number of cells than the head, or `align` is longer or has other letters.
    """
    lines = [[_escape(cell) for cell in row] for row in (head, *rows)]
    for row in lines[1:]:
        if len(row) != len(head):
            raise ValueError(f"A row must have {len(head)} cells, as many as the head, got {len(row)}: {row}.")
    if len(align) > len(head) or set(align) - set("lr"):
        raise ValueError(f"`align` must have at most {len(head)} letters, each l or r, got {align!r}.")
    is_right = [side == "r" for side in align.ljust(len(head), "l")]
    widths = [max(3, *(len(row[column]) for row in lines)) for column in range(len(head))]
    rule = ["-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, is_right, strict=True)]
    written = [
        " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_right, strict=True)
        )
        for row in lines
    ]
    return "\n".join([f"| {written[0]} |", f"|{'|'.join(rule)}|", *(f"| {row} |" for row in written[1:])])


def format_number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Return a number with `digits` decimals, or a dash for None; `sign` writes the plus."""
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def format_percent(share: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """Return a share as a percentage without its sign, or a dash for None."""
    return format_number(None if share is None else 100 * share, digits, sign=sign)


def format_band(band: Sequence[float | None] | None, digits: int = 1) -> str:
    """Return an interval as "low to high".

    It is "too few" where its ends are None, and a dash where there is none at all.
    """
    if not band:
        return NOTHING
    return TOO_FEW if None in band else f"{band[0]:.{digits}f} to {band[1]:.{digits}f}"


def _escape(cell: object) -> str:
    return " ".join(str(cell).split()).replace("|", "\\|")
