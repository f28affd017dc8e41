"""Tables keep their columns whatever stands in a cell."""

import pytest

from processing.tables import format_band, format_number, format_percent, markdown_table


def test_columns_have_one_width_and_numbers_stand_below_each_other():
    assert markdown_table(["name", "n"], [["a", 5], ["longer", 1200]], "lr") == (
        "| name   |    n |\n|--------|-----:|\n| a      |    5 |\n| longer | 1200 |"
    )
    assert markdown_table(["", ""], []) == "|     |     |\n|-----|-----|"


def test_no_cell_breaks_its_row():
    table = markdown_table(["question"], [["a | b\nc"]])
    assert table.splitlines()[2] == "| a \\| b c |" and len(table.splitlines()) == 3


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"must have 2 cells, as many as the head, got 1: \['a'\]"):
        markdown_table(["x", "y"], [["a"]])
    for align in ("lrl", "lc"):
        with pytest.raises(ValueError, match="at most 2 letters, each l or r"):
            markdown_table(["x", "y"], [], align)


def test_numbers_and_bands():
    assert [format_number(0.125), format_number(2.0, 0, sign=True), format_number(None)] == ["0.12", "+2", "-"]
    assert [format_percent(0.5), format_percent(-0.25, 0, sign=True), format_percent(None)] == ["50.0", "-25", "-"]
    assert [format_band((1, 2.25)), format_band((None, None)), format_band(None)] == ["1.0 to 2.2", "too few", "-"]
