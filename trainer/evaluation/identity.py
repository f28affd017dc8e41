"""Facts that the answers of a run depend on, as short texts that differ when a fact does."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from processing.benchmarks.readers.scenes import scene_infos
from processing.benchmarks.readers.tasks import Layout

__all__ = ["digest", "find_base", "model_revision", "scene_files_digest", "tokenizer_digest"]


def digest(value: Any) -> str:
    """Return a short digest of anything that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def model_revision(model: str, commit: str | None) -> str:
    """Return the commit of a Hub model, or a digest of a folder.

    For the folder of a PEFT adapter the revision of its base follows.

    Raises:
        FileNotFoundError: If a folder holds no weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(commit)
    files = sorted(
        file for file in folder.iterdir() if file.suffix == ".safetensors" or file.name.endswith("config.json")
    )
    if not any(file.suffix == ".safetensors" for file in files):
        raise FileNotFoundError(f"{folder} holds no .safetensors file: give the folder of a model or an adapter.")
    revision = f"sha256:{_digest_files(files, [file.name for file in files], 'Weights')}"
    if base := find_base(model):
        revision += f" on {model_revision(base, commit)}"
    return revision


def find_base(model: str) -> str | None:
    """Folder or Hub name of the model that an adapter is for."""
    adapter = find_adapter_config_file(model)
    return None if adapter is None else json.loads(Path(adapter).read_text("utf-8"))["base_model_name_or_path"]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of a loaded tokenizer: vocabulary, merges and rules, wherever they came from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    return digest([rules, tokenizer.special_tokens_map])


def scene_files_digest(data_dir: str | Path, frames: Mapping[str, Sequence[str]], parts: Collection[str]) -> str:
    """Return a digest of the contents of the files that scenes are read from.

    Args:
        data_dir: Folder in the public layout.
        frames: Names of the frames by scene; none for a video file.
        parts: Parts that are read beside the frames, as in `load_scene`.
    """
    layout = Layout(data_dir)
    suffixes = [".jpg", *(suffix for part, suffix in (("depth", ".png"), ("poses", ".txt")) if part in parts)]
    files: list[Path] = []
    for scene, names in sorted(frames.items()):
        if not names:
            files.append(layout.video(scene))
            continue
        files += [layout.frames(scene) / f"{name}{suffix}" for name in names for suffix in suffixes]
        if len(suffixes) > 1:
            files += [layout.frames(scene) / name for name in ("intrinsic.txt", "depth_intrinsic.txt")]
    there = [file for file in files if file.is_file()]  # the reader names those that are missing
    found = _digest_files(there, [str(file.relative_to(layout.root)) for file in there], "Frames")[:16]
    if "poses" not in parts:
        return found
    infos = scene_infos(layout)
    cameras = [
        [scene, *(infos[scene][key].tolist() for key in ("axis_align_matrix", "depth_cam2img"))]
        for scene in sorted(frames.keys() & infos.keys())
    ]
    return digest([found, cameras])


def _digest_files(files: Sequence[Path], names: Iterable[str], what: str) -> str:
    """Return a digest of names and contents, with a progress bar."""
    found = hashlib.sha256()
    total = sum(file.stat().st_size for file in files)
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, delay=2, disable=None) as progress:
        for file, name in zip(files, names, strict=True):
            found.update(name.encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    found.update(block)
                    progress.update(len(block))
    return found.hexdigest()[:32]
