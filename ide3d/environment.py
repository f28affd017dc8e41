"""Facts of the installation that a report of a fault needs: versions, devices, attention kinds, threads."""

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Environment", "describe_environment"]

PACKAGES = (
    "ide3d",
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "huggingface_hub",
    "safetensors",
)
VIDEO_READERS = ("av", "torchcodec")


@dataclass(frozen=True)
class Environment:
    """Versions and devices.

    Args:
        python: Version of Python.
        system: Operating system and processor.
        versions: Version of each package; None where it is not installed.
        video_readers: Version of each package that decodes video files; None where it is not installed.
        devices: Name of each accelerator; empty on a machine with none.
        attention: Names of attention kinds that a model can use here.
        threads: Threads that torch computes with on the processor.
        nano_model: Folder of the shipped nano model; None where it is missing.
    """

    python: str
    system: str
    versions: dict[str, str | None]
    video_readers: dict[str, str | None]
    devices: list[str]
    attention: list[str]
    threads: int
    nano_model: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return asdict(self)

    def as_text(self) -> str:
        """Return one line for each fact."""
        facts = {
            "python": self.python,
            "system": self.system,
            **self.versions,
            **self.video_readers,
            "devices": ", ".join(self.devices) or "cpu only",
            "attention": ", ".join(self.attention),
            "threads": str(self.threads),
            "nano model": self.nano_model,
        }
        width = max(map(len, facts))
        return "\n".join(f"{name:<{width}}  {value or 'not installed'}" for name, value in facts.items())


def describe_environment() -> Environment:
    """Look at the installation and the devices."""
    import torch
    from transformers import utils

    from ide3d.nano import nano_model

    kinds = {
        "eager": True,
        "sdpa": True,
        "flex_attention": utils.is_torch_flex_attn_available(),
        "flash_attention_2": utils.is_flash_attn_2_available(),
        "flash_attention_3": utils.is_flash_attn_3_available(),
    }
    try:
        nano = str(nano_model())
    except FileNotFoundError:
        nano = None
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        versions={name: _version(name) for name in PACKAGES},
        video_readers={name: _version(name) for name in VIDEO_READERS},
        devices=_list_devices(torch),
        attention=[name for name, is_usable in kinds.items() if is_usable],
        threads=torch.get_num_threads(),
        nano_model=nano,
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _list_devices(torch: Any) -> list[str]:
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator().type
    module = getattr(torch, kind)
    count = torch.accelerator.device_count()
    names = [module.get_device_name(index) if hasattr(module, "get_device_name") else kind for index in range(count)]
    return [f"{kind}:{index} {name}" for index, name in enumerate(names)]
