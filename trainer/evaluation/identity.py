"""Facts that the answers of a run depend on, as short texts that differ when a fact does."""

import hashlib
import importlib.metadata
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from processing.benchmarks.readers.scenes import scene_infos
from processing.benchmarks.readers.tasks import Layout
from processing.video_reading_ide3d import choose_backend

__all__ = [
    "ANSWERING_PACKAGES",
    "SCORING_PACKAGES",
    "computing_facts",
    "digest",
    "find_base",
    "hardware_name",
    "model_revision",
    "package_versions",
    "scene_files_digest",
    "tokenizer_digest",
]

ANSWERING_PACKAGES = (
    "ide3d",
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "safetensors",
    "numpy",
    "pillow",
)
SCORING_PACKAGES = ("ide3d", "evaluate", "datasets", "pycocoevalcap", "numpy", "scipy")
DECODING_PACKAGES = {"pyav": ("av",), "torchcodec": ("torchcodec", "av")}  # PyAV plans, and converts colours, for both
ATTENTION_PACKAGES = {"flash_attention_2": "flash-attn", "flash_attention_3": "flash-attn-3"}


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


def computing_facts(model: PreTrainedModel, reads_videos: bool) -> dict[str, str | None]:
    """Return how a loaded model computes: attention of both parts, device, kernels and decoder.

    Args:
        model: `IDE3DForConditionalGeneration`, on its device.
        reads_videos: Whether video files are decoded; otherwise `decoder` is None.

    Returns:
        `attention_vision` and `attention_language`: the implementations that the parts run, not what was asked for.
        `device`: kind, such as "cuda". `kernels`: packages that compute in place of torch, "torch" for none.
        `decoder`: decoder of video files, with its version and that of FFmpeg's codecs.
    """
    vision, language = model.model.vision_tower.config, model.model.language_model.config
    attention = [str(config._attn_implementation) for config in (vision, language)]
    kinds = [name.removeprefix("paged|") for name in attention]
    packages = {ATTENTION_PACKAGES[kind] for kind in kinds if kind in ATTENTION_PACKAGES}
    if model.use_kernels or any("/" in kind for kind in kinds):  # kernels of the Hub
        packages.add("kernels")
    kernels = [_name_package(name) for name in sorted(packages)]
    return {
        "attention_vision": attention[0],
        "attention_language": attention[1],
        "device": model.device.type,
        "kernels": ", ".join(kernels + ["layers of the Hub"] * model.use_kernels) or "torch",
        "decoder": _describe_decoder() if reads_videos else None,
    }


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each installed package; names that are not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware_name(device: torch.device) -> str:
    """Return the name of an accelerator, or the instruction set of the processor."""
    module = getattr(torch, device.type, None)
    if hasattr(module, "get_device_name"):
        return module.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type


def _name_package(name: str) -> str:
    return f"{name} {package_versions([name]).get(name, 'of unknown version')}"


def _describe_decoder() -> str:
    """Return the decoder that videos are read with, its version and that of FFmpeg's codecs."""
    import av

    versions = " with ".join(_name_package(name) for name in DECODING_PACKAGES[choose_backend()])
    return f"{versions}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


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
