"""A Space is a folder that runs as it stands: its header is one of the Hub's, its page answers."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from commanding import run_command
from huggingface_hub import SpaceCard

gradio = pytest.importorskip("gradio", reason="the extra `app` is not installed")

from ide3d.app.space import write_space  # noqa: E402 (needs gradio)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spaces") / "space"
    assert str(folder) in run_command("app", "--space", folder).stdout
    return folder


def test_its_header_is_one_that_the_hub_reads(space):
    data = SpaceCard.load(space / "README.md").data
    assert (data.sdk, data.sdk_version, data.app_file) == ("gradio", gradio.__version__, "app.py")
    assert data.license == "apache-2.0" and data.title == "Ask about a room"


def test_it_needs_what_the_packages_need_and_no_extra(space):
    lines = (space / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("torch>=") for line in lines) and any(line.startswith("av") for line in lines)
    assert not any("extra" in line or "pytest" in line or line.startswith("ide3d") for line in lines)


def test_it_names_the_models_that_were_asked_for(tmp_path):
    write_space(tmp_path / "space", ("someone/model",))
    assert "PageSettings(models=('someone/model',))" in (tmp_path / "space" / "app.py").read_text()
    assert SpaceCard.load(tmp_path / "space" / "README.md").data.models == ["someone/model"]
    with pytest.raises(ValueError, match="A Space has no folder"):
        write_space(tmp_path / "other", (str(tmp_path),))
    with pytest.raises(FileExistsError, match="is not empty"):
        write_space(tmp_path / "space")


@pytest.mark.slow
def test_it_runs_as_it_stands(space, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    where = "import ide3d.app.page, ide3d.nano; print(ide3d.app.page.__file__, ide3d.nano.nano_model())"
    told = subprocess.run([sys.executable, "-c", where], cwd=space, env=environment, capture_output=True, text=True)
    assert [line.startswith(str(space)) for line in told.stdout.split()] == [True, True], told.stderr
    server = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=environment)
    try:
        deadline = time.monotonic() + 240
        while True:
            assert server.poll() is None and time.monotonic() < deadline
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
                break
            except OSError:
                time.sleep(1)
        assert "IDE3D: ask about a room" in page and "the shipped nano model" in page
    finally:
        server.terminate()
        server.wait()
