"""The report of a GPU, run on the CPU at tiny sizes; that it writes nothing unasked; and what becomes of a failure."""

import json
import os
import sys
import time

import pytest
import torch
from benchmarks import gpu_parts, gpu_report, gpu_shapes

ROW = '{"what": "a", "result": "b", "verdict": "ok"}'
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there, and the report would be run")


@pytest.fixture
def run(tmp_path):
    """`run(code)` runs Python as a part whose rows go to `sys.argv[1]`."""

    def start(code, limit=60):
        rows = tmp_path / "rows.jsonl"
        return gpu_report.run_process([sys.executable, "-c", code, str(rows)], dict(os.environ), rows, limit)

    return start


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{gpu_report.START}\n{gpu_report.EMPTY}\n{gpu_report.END}\n\nEnd.\n")
    return path


@no_gpu
def test_without_a_gpu_nothing_is_run_or_written(page, capsys):
    before, text = gpu_report.PAGE.read_bytes(), page.read_text()
    assert gpu_report.main([]) == 0
    assert gpu_report.main(["--output", str(page)]) == 0
    assert "No GPU is at hand" in capsys.readouterr().out
    assert gpu_report.PAGE.read_bytes() == before and page.read_text() == text


def test_the_page_has_a_place_for_the_table():
    text = gpu_report.PAGE.read_text("utf-8")
    inside = gpu_report.replace_section(text, "### new").split(gpu_report.START)[1].split(gpu_report.END)[0]
    assert "### new" in inside and gpu_report.EMPTY not in inside
    assert (gpu_report.EMPTY in text) != ("\n### " in text.split(gpu_report.START)[1].split(gpu_report.END)[0])


@pytest.mark.parametrize("text", ["", gpu_report.START, gpu_report.END + 2 * gpu_report.START])
def test_a_page_without_markers_is_an_error_before_anything_runs(page, text, monkeypatch):
    page.write_text(text)
    monkeypatch.setattr(gpu_report, "run_part", lambda *_: pytest.fail("it ran"))
    with pytest.raises(ValueError, match="must have the lines"):
        gpu_report.main(["--device", "cpu", "--output", str(page)])


def test_rows_stand_in_the_page_and_a_later_run_takes_their_place(page, monkeypatch, capsys):
    verdicts = iter(["failed: x | y", "ok", "ok"])

    def find(name, *_):
        return [{"part": name, "what": "w", "result": "r", "verdict": next(verdicts)}]

    monkeypatch.setattr(gpu_report, "run_part", find)
    words = ["--device", "cpu", "--parts", "packed", "--output", str(page)]
    assert gpu_report.main(words) == 1
    first = page.read_text()
    assert "| packed | w | r | failed: x \\| y |" in first and gpu_report.EMPTY not in first
    assert gpu_report.main(words) == 0
    second = page.read_text()
    assert second.count("### ") == 1 and "| packed | w | r | ok |" in second and "failed" not in second
    monkeypatch.setattr(gpu_report, "describe_platform", lambda device: "Another card")
    assert gpu_report.main(words) == 0
    assert page.read_text().count("### ") == 2
    assert page.read_text().startswith("# Title\n") and page.read_text().endswith("\n\nEnd.\n")
    assert gpu_report.EMPTY in gpu_report.PAGE.read_text("utf-8") or not torch.cuda.is_available()


def test_rows_before_a_failure_are_kept(run):
    found = run(f"import sys; open(sys.argv[1], 'w').write({ROW + chr(10)!r}); raise RuntimeError('out of memory')")
    assert [row["verdict"] for row in found] == ["ok", "failed: exit code 1, RuntimeError: out of memory"]


def test_a_part_that_is_killed_or_finds_nothing_is_a_row(run):
    assert run("import os; os.kill(os.getpid(), 9)")[0]["verdict"].startswith("failed: exit code -9")
    assert run("pass")[0]["verdict"] == "failed: no rows, no output"


@pytest.mark.slow
def test_a_part_that_hangs_ends_with_all_its_processes(run, tmp_path):
    """As torchrun does, it has started others."""
    child = "import sys, time; open(sys.argv[1] + '.child', 'w').write(sys.argv[0]); time.sleep(100)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    code = code.replace("sys.argv[0]", "str(__import__('os').getpid())")
    start = time.monotonic()
    assert run(code, limit=5)[0]["verdict"].startswith("failed: more than 5 s")
    assert time.monotonic() - start < 60
    process = int((tmp_path / "rows.jsonl.child").read_text())
    for _ in range(100):  # whoever inherits it may take a moment to bury it
        try:
            state = open(f"/proc/{process}/stat").read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child lives on")


@pytest.fixture
def part(tmp_path):
    return gpu_parts.Part("cpu", True, tmp_path / "rows.jsonl")


def read(part):
    return [json.loads(line) for line in part.output.read_text().splitlines()]


@pytest.mark.parametrize("name, count", [("equality-7b", 6), ("packed", 1)])
def test_equality_holds_on_the_cpu(part, name, count):
    gpu_parts.PARTS[name](part)
    rows = read(part)
    assert len(rows) == count
    assert all(row["verdict"] == "ok" and row["result"] for row in rows)


def test_another_model_is_no_equal(part):
    """The bound of the verdict tells a model from itself."""
    seeds = iter(range(10))

    def load(dtype, device):
        config = gpu_shapes.eighth(True)
        model = gpu_shapes.build(gpu_parts.IDE3DForConditionalGeneration, config, device, dtype)
        with torch.no_grad():
            model.lm_head.weight.add_(0.5 * next(seeds) * model.lm_head.weight.std())
        return model

    gpu_parts.compare_attention(part, load, 2, "cpu")
    assert {row["verdict"].partition(":")[0] for row in read(part)} == {"failed"}


def test_an_error_in_a_row_leaves_the_others(part):
    with part.row("first"):
        raise ValueError("wrong\nnumber")
    with part.row("second"):
        part.add("second", "fine", "ok")
    assert [row["verdict"] for row in read(part)] == ["failed: ValueError: wrong number", "ok"]


def test_chats_of_a_pack_are_of_one_length_behind_the_video():
    config = gpu_shapes.eighth(True)
    batch = gpu_shapes.pack(gpu_shapes.draw_batch(config, 2, 64), 8)
    assert batch["segment_ids"].unique(return_counts=True)[1][1:].tolist() == 8 * [4]
    assert (batch["segment_ids"][batch["labels"] != -100] > 0).all()
    assert (batch["segment_ids"][batch["input_ids"] == config.video_token_id] == 0).all()


def test_an_eighth_of_the_layers_keeps_all_widths():
    config, whole = gpu_shapes.eighth(False), json.loads((gpu_shapes.RECIPES / "ide3d_7b_config.json").read_text())
    assert (config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers) == (4, 4)
    for name in ("vision_config", "text_config"):
        found = getattr(config, name).to_dict()
        assert {**whole[name], "num_hidden_layers": 4}.items() <= found.items()


@pytest.mark.slow
def test_every_part_runs_on_the_cpu(page, capsys):
    before = gpu_report.PAGE.read_bytes()
    assert gpu_report.main(["--device", "cpu", "--small", "--output", str(page)]) == 0, capsys.readouterr().out
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")][1:]
    assert {row[0].removeprefix("| ") for row in rows} == set(gpu_report.PARTS)
    assert gpu_report.PAGE.read_bytes() == before
