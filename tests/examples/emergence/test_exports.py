"""Exports of arms, compared tensor by tensor."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from examples.emergence import exports, files, training


@pytest.mark.slow
def test_exports_of_arms_are_told_apart_by_what_is_in_them(prepared, caplog):
    """Losses leave no tensor and no entry; another width would be seen."""
    path, study = prepared
    with pytest.raises(SystemExit, match="exposure, seed 1, is not trained"):
        exports.main([str(path), "--seed", "1"])
    for arm in study.rows:
        training.train_run(study, arm, 1)
    with caplog.at_level("INFO", "emergence"):
        exports.main([str(path), "--seed", "1", "--rounds", "1"])
    output = Path(study.output_dir)
    found = json.loads((output / "exports-seed1.json").read_text())
    assert {name: entry["is_same"] for name, entry in found.items()} == {"exposure": True, "all": True}
    assert found["all"]["bytes"] == found["exposure"]["bytes"] and found["exposure"]["ratio"] == [1.0, 1.0, 1.0]
    assert "DIFFERENT" not in caplog.text and caplog.text.count("the same") == 1
    folder = output / "exports" / "seed1-all"
    facts = exports.describe_export(folder)
    weights = load_file(folder / exports.WEIGHTS)
    name = next(name for name in weights if weights[name].ndim == 2)
    files.save_weights(folder / exports.WEIGHTS, {**weights, name: weights[name][:, :-1]})
    assert exports.describe_export(folder)["tensors"] != facts["tensors"]
