"""The lint finds what it should in docstrings, and nothing else."""

import re

import docstring_lint
import pytest
from docstring_lint import faults


def function(docstring: str) -> str:
    """Source of a function with a docstring."""
    lines = docstring.strip().splitlines()
    body = "\n".join(["    " + line if line else "" for line in lines])
    return f'def measure(rows, seed):\n    """{body.strip()}\n    """\n'


GOOD = """
Return the share (B, V, H, W) of pixels that at least two cameras of a scene see.

A sentence of twenty-five words ends here: it counts one word after the other until there is no more to be said.

    ================  ======================================  =====================================
    rule              paper, with a long column of its words  clean, with another one of its own too
    ================  ======================================  =====================================
    broken pixels     become zero as in the original work     ValueError: bad data must be seen by all
    ================  ======================================  =====================================

- A point of a list that is a thought of its own, with a few words and no more.
- Another point that follows without a full stop before it, and has a few words too

```python
one_line_of_code = [this, may, be, as, long, as, it, likes, because, nobody, reads, it, as, a, sentence, at, all, ever]
```

Args:
    rows: Number of rows.
    seed:
        Seed of the bootstrap; the default is that of the study.

Shape:
    rows:   (N, C), float32.
    output: (N,), in metres; `None` where nothing is measured.

Raises:
    ValueError: If there are no rows.

Example:
    >>> print(" ".join(["word"] * 30))
    word word word word word word word word word word word word word word word word word word word word word word word
    word word word word word word word
"""


def test_a_good_docstring_has_no_fault():
    assert faults(function(GOOD)) == []


@pytest.mark.parametrize(
    ("docstring", "message"),
    [
        ("What a ridge regression reads.", "first line begins with 'What'"),
        ("Where, in the picture, a token lies.", "first line begins with 'Where,'"),
        ("Return " + "one " * 15 + "shape.", "first line has 17 words, at most 15"),
        ("Return it.\n\nArgs:\n    seed: Of the split.", "seed: begins with 'Of'; use a noun phrase"),
        ("Return it.\n\nArgs:\n    seed:\n        Only these.", "seed: begins with 'Only'"),
        ("Return it.\n\nAttributes:\n    seed: At most five.", "seed: begins with 'At'"),
        ("Return it.\n\nArgs:\n    rows: Rows.\n    **seed (int): As above.", "seed: begins with 'As'"),
        ("Return it.\n\nIt " + "goes " * 25 + "on.", "a sentence of 27 words: It goes"),
        ("Return it.\n\nReturns:\n    A " + "very " * 25 + "long tale.", "a sentence of 28 words: A very"),
        ("Return it.\n\n- It " + "goes\n  " * 25 + "on.", "a sentence of 27 words"),
        ("Return it.\n\nRaises:\n    ValueError: If " + "it " * 25 + "fails.", "a sentence of 27 words: If it"),
    ],
)
def test_a_fault_is_named(docstring, message):
    (line, found), *others = faults(function(docstring))
    assert line == 1 and found.startswith("`measure`: ") and message in found and not others


def test_what_is_no_word_is_not_counted():
    assert faults(function("Return k = 1 + 2 * 3 - (one two three four five) of the n + 1 smallest values.")) == []
    assert faults(function("Return it.\n\nIt is " + "a = b, " * 8 + "so `one two three four` is one word.")) == []


def test_a_sentence_ends_at_a_quotation_mark_too():
    assert faults(function("Return it.\n\nIt says " + "a " * 20 + '"no." And it says ' + "a " * 20 + '"yes."')) == []


def test_modules_and_classes_are_read_and_modules_may_begin_with_a_longer_line():
    source = '"""' + "A package " * 12 + '."""\n\n\nclass Scene:\n    """Who it is."""\n'
    assert [line for line, _ in faults(source)] == [4]
    assert faults('"""Who it is."""\n')[0][1].startswith("`module`: first line begins with 'Who'")


def test_the_command_says_where_and_leaves_copies_out(tmp_path, monkeypatch, capsys):
    for name in ("trainer/loop.py", "examples/checkpoints/nano/loop.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text('"""What it does."""\n', encoding="utf-8")
    monkeypatch.setattr(docstring_lint, "REPOSITORY", tmp_path)
    assert docstring_lint.main() == 1
    assert re.fullmatch(r"trainer/loop\.py:1: `module`: .*\n", capsys.readouterr().out)
    (tmp_path / "trainer" / "loop.py").write_text('"""Training loop."""\n', encoding="utf-8")
    assert docstring_lint.main() == 0
