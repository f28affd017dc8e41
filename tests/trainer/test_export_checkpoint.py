"""An inference export from a checkpoint of the trainer: heads dropped, processor found, what is missing named."""

import shutil

import pytest
from exporting import build_processor, build_training_model
from safetensors.torch import load_file, save_file

from trainer.export import export_checkpoint, is_export


@pytest.fixture(scope="module")
def _run(tmp_path_factory):
    """Output folder of a run with one checkpoint, as `IDE3DTrainer` leaves it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    processor = build_processor()
    model = build_training_model(processor)
    model.save_pretrained(run / "checkpoint-3")
    save_file(model.geometry_state_dict(), run / "checkpoint-3" / "geometry_modules.safetensors")
    processor.save_pretrained(run / "checkpoint-3")
    (run / "checkpoint-3" / "trainer_state.json").write_text("{}")
    return run


@pytest.fixture
def run(_run, tmp_path):
    """A copy to break."""
    return shutil.copytree(_run, tmp_path / "run")


def test_heads_stay_behind(run, tmp_path):
    folder = export_checkpoint(run / "checkpoint-3", tmp_path / "export")
    assert is_export(folder)
    weights = load_file(folder / "model.safetensors")
    assert weights and not any("validator" in name or "teacher" in name for name in weights)
    trained = load_file(run / "checkpoint-3" / "model.safetensors")
    assert all((trained[name] == value).all() for name, value in weights.items() if name in trained)


def test_the_processor_lies_beside_the_weights_or_around_them_or_is_named(run, tmp_path):
    build_processor().save_pretrained(tmp_path / "elsewhere")
    for path in (run / "checkpoint-3").iterdir():
        if path.name in {file.name for file in (tmp_path / "elsewhere").iterdir()}:
            path.unlink()
    with pytest.raises(FileNotFoundError, match="has a processor_config.json: name the processor's folder"):
        export_checkpoint(run, tmp_path / "export")
    assert is_export(export_checkpoint(run, tmp_path / "export", processor=tmp_path / "elsewhere"))
    build_processor().save_pretrained(run)
    assert is_export(export_checkpoint(run, tmp_path / "export"))


def test_what_is_no_checkpoint_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*absent"):
        export_checkpoint(tmp_path / "absent", tmp_path / "export")
    for path in (run / "checkpoint-3").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no .safetensors file"):
        export_checkpoint(run, tmp_path / "export")
    assert not (tmp_path / "export").exists()
