"""Weight files as they are read: rows that are appended, and what stays unread."""

import pytest
import torch
from safetensors.torch import save_file

from modeling_ide3d.conversion import weights
from modeling_ide3d.conversion.weights import append_mean_rows, inspect_weight_files


@pytest.mark.parametrize("kind", ["safetensors", "pickled", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece_bytes", [1, 1000, 2**22])
def test_rows_are_appended_whatever_the_pieces(tmp_path, monkeypatch, kind, dtype, piece_bytes):
    monkeypatch.setattr(weights, "PIECE_BYTES", piece_bytes)
    matrix = torch.randn(301, 8).to(dtype)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.bin")
    if kind == "safetensors":
        save_file({"other": torch.zeros(3), "matrix": matrix}, path)
    else:
        content = {"other": torch.zeros(3), "matrix": matrix}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "pickled")
    grown = append_mean_rows(inspect_weight_files([path])["matrix"], 2)
    assert grown.dtype == dtype and grown.shape == (303, 8)
    assert torch.equal(grown[:301], matrix)
    torch.testing.assert_close(grown[301:], matrix.double().mean(0).to(dtype).expand(2, -1))


def test_a_tensor_in_two_files_is_named(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in ("first", "second")]
    for file in files:
        save_file({"model.norm.weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is in two weight files, first\.safetensors and second"):
        inspect_weight_files(files)
