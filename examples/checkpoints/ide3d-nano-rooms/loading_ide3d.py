"""Loading and saving of 3D-IDE models: damaged folders are named, missing weights are refused."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import validate_repo_id
from torch import nn
from transformers.modeling_utils import PreTrainedModel, load_state_dict

logger = logging.getLogger(__name__)

ADAPTER_CONFIG, GENERATION_CONFIG = "adapter_config.json", "generation_config.json"
SHOWN = 4  # names in a message
PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        OSError: If the file is damaged, no JSON, or holds something else; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(f"{path} is damaged or no JSON file ({error}). Copy or download it again.") from error
    if not isinstance(content, dict):
        raise OSError(
            f"{path} must hold a JSON object, got a {type(content).__name__}. Copy or download it again, or write it "
            "by `save_pretrained`."
        )
    return content


def check_place(name: Any) -> None:
    """Check that a name is a folder, a file, or possible on the Hub.

    Raises:
        TypeError: It is neither text nor path.
        OSError: It is a path at which there is nothing, or something else than a folder.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"pretrained_model_name_or_path must be a folder or a name on the Hub, got {name!r:.100}.")
    text = os.fspath(name)
    shown = text if len(text) < 300 else f"{text[:100]}..."
    if os.path.isdir(text) or os.path.isfile(text):
        return
    if os.path.lexists(text):
        raise OSError(f"{shown!r} is no folder but a pipe, a device or a link to nothing. Give the folder of a model.")
    try:
        validate_repo_id(text)
    except ValueError as error:
        raise FileNotFoundError(f"There is no folder {shown!r}, and no model on the Hub can be called so.") from error


def check_dtype(dtype: Any) -> None:
    """Check a type of weights, as `from_pretrained` takes it.

    Args:
        dtype (`str`, `torch.dtype` or `dict`, *optional*):
            Type, its name, "auto" for that of the files, or one for each part of the config.

    Raises:
        TypeError: It is none of these.
        ValueError: There is no such type, or it holds no fractions.
    """
    for one in dtype.values() if isinstance(dtype, dict) else [dtype]:
        if not isinstance(one, (str, torch.dtype, type(None))):
            raise TypeError(f"dtype must be a type such as torch.bfloat16, its name, or 'auto', got {one!r}.")
        found = getattr(torch, one, None) if isinstance(one, str) else one
        if one in (None, "auto"):
            continue
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise ValueError(
                f"dtype must be a type of weights, such as 'float32', 'bfloat16' or 'float16', or 'auto', got {one!r}."
            )


def check_weight_files(folder: Path, *, is_quantized: bool = False) -> None:
    """Check the header and the size of each weight file, and name a damaged one.

    Args:
        folder (`Path`): Folder of a model or an adapter.
        is_quantized (`bool`): Whether weights may be whole numbers.

    Raises:
        OSError: If a file is truncated or damaged, is no safetensors file, or holds whole numbers for weights.
    """
    for file in sorted([*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")]):
        if not file.is_file():
            raise OSError(f"{file} is a pipe, device or folder, which is not opened. Copy or download the file again.")
        try:
            stored = load_state_dict(file, map_location="meta")
        except Exception as error:  # safetensors says what is wrong, but not with which file
            raise OSError(
                f"{file} is truncated or no safetensors file ({error}). Copy or download it again."
            ) from error
        whole = [
            key for key, value in stored.items() if key.endswith(("weight", "bias")) and not _is_fractional(value)
        ]
        if whole and not is_quantized:
            raise OSError(
                f"{file} holds whole numbers for {len(whole)} weights, such as {whole[:SHOWN]}, and config.json names "
                "no quantization_config. Copy or download the file again, or save weights of floating point."
            )


def _is_fractional(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def check_model_files(folder: Path, *, needs_config: bool = True) -> None:
    """Check the JSON and weight files of a local folder.

    A name on the Hub passes.

    Args:
        folder (`Path`): Folder of a model, or of an adapter, whose base is looked at too.
        needs_config (`bool`): Whether a model must have a `config.json`; False where the caller gives a config.

    Raises:
        OSError: If a file is missing or damaged; the message names it.
    """
    if not folder.is_dir():
        return
    config = folder / "config.json"
    content = read_json_object(config) if config.is_file() else {}
    check_weight_files(folder, is_quantized=bool(content.get("quantization_config")))
    if (folder / ADAPTER_CONFIG).is_file():
        base = read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        if isinstance(base, str) and base and not Path(base, ADAPTER_CONFIG).is_file():
            check_model_files(Path(base))
        return
    if needs_config and not config.is_file():
        raise FileNotFoundError(
            f"{config} is missing. Expected the folder of a model, as `save_pretrained` writes it; "
            "copy or download it again, or pass `config`."
        )
    for name in (GENERATION_CONFIG, "model.safetensors.index.json"):
        if (folder / name).is_file():
            read_json_object(folder / name)
        elif os.path.lexists(folder / name):
            raise OSError(
                f"{folder / name} must be a regular file, it is a folder, a pipe, a device or a link to nothing. It "
                "was not opened: copy or download the file again."
            )


class IDE3DLoadingMixin:
    """`from_pretrained` and `save_pretrained` of the 3D-IDE models."""

    _missing_on_load: tuple[str, ...] = ()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args,
        allow_missing: bool = False,
        **kwargs,
    ):
        """Load a model as [`PreTrainedModel.from_pretrained`] does; damaged files are named.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`, *optional*): Folder, or name on the Hub.
            *model_args: Passed on.
            allow_missing (`bool`):
                Whether weights that the files lack are initialised at random, as for a training that adds a part.
                With `output_loading_info=True` they are too, and named in the report.
            **kwargs: Passed on.

        Raises:
            OSError: A file is missing, truncated or damaged.
            RuntimeError: Weights have other shapes than the config says.
            ValueError: Weights of the inference model are missing.
        """
        check_dtype(kwargs.get("dtype", kwargs.get("torch_dtype")))
        if pretrained_model_name_or_path is not None:
            check_place(pretrained_model_name_or_path)
        elif kwargs.get("config") is None:
            raise TypeError("pretrained_model_name_or_path must be a folder or a name on the Hub, got None.")
        name, has_report = pretrained_model_name_or_path, kwargs.pop("output_loading_info", False)
        if name is not None:
            folder = Path(name, kwargs.get("subfolder") or "")
            check_model_files(folder, needs_config=kwargs.get("config") is None)
        model, report = super().from_pretrained(name, *model_args, output_loading_info=True, **kwargs)
        missing = sorted({*model._missing_on_load, *report["missing_keys"]})
        if missing and name is not None and not (allow_missing or has_report):
            raise ValueError(_describe_missing(model, name, missing, sorted(report["unexpected_keys"])))
        if name is not None:
            _tell_of_weights(model, name, sorted(report["unexpected_keys"]))
        if name is not None and model.can_generate() and folder.is_dir() and kwargs.get("generation_config") is None:
            if not any((folder / file).is_file() for file in (GENERATION_CONFIG, ADAPTER_CONFIG)):
                logger.warning(
                    "%s has no %s: `generate` does not know which token ends an answer, and stops after 20 new "
                    "tokens. Copy that file there, or pass `eos_token_id` and `max_new_tokens`.",
                    folder,
                    GENERATION_CONFIG,
                )
        model.settle_tied_weights()
        return (model, report) if has_report else model

    @staticmethod
    def _finalize_model_loading(model, load_config, loading_info):
        # The report of `from_pretrained` is that of the adapter where there is one; this is the model's.
        try:
            loading_info = PreTrainedModel._finalize_model_loading(model, load_config, loading_info)
        except RuntimeError as error:
            if not loading_info.mismatched_keys:
                raise
            raise RuntimeError(_describe_mismatched(model, load_config, loading_info.mismatched_keys)) from error
        model._missing_on_load = tuple(loading_info.missing_keys)
        return loading_info

    def save_pretrained(self, *args, **kwargs):
        """Save as [`PreTrainedModel.save_pretrained`] does; the config says whether head and embedding are one."""
        if not self._hf_peft_config_loaded:
            self.settle_tied_weights()
        return super().save_pretrained(*args, **kwargs)

    def settle_tied_weights(self):
        """Let the config say whether head and embedding are one weight.

        The config is believed when a model is loaded, and adapters may train one of the two without the other. Equal
        weights that the config calls tied are tied.
        """
        text, head = self.config.get_text_config(), self.get_output_embeddings()
        if head is None:
            return
        embedding = self.get_input_embeddings().weight
        is_said = self.config.tie_word_embeddings or bool(getattr(text, "tie_word_embeddings", False))
        is_tied = head.weight is embedding
        if is_said and not is_tied:
            if head.weight.is_meta or type(embedding) is not nn.Parameter or not embedding.numel():
                return  # a part of it, or none, is here
            is_tied = torch.equal(head.weight, embedding.to(head.weight))
        if self.config.tie_word_embeddings != is_tied or is_said != is_tied:
            self.config.tie_word_embeddings = text.tie_word_embeddings = is_tied
        if is_tied:
            head.weight = embedding
        elif is_said:
            logger.warning("The head differs from the embedding: `tie_word_embeddings` is now False in the config.")
            self.all_tied_weights_keys.pop("lm_head.weight", None)
            self._keys_to_ignore_on_save.discard("lm_head.weight")


def _tell_of_weights(model: PreTrainedModel, name: str | os.PathLike, foreign: list[str]) -> None:
    """Warn of weights that are not finite, and of layers left out."""
    layers = [key for key in foreign if ".layers." in key]
    if layers:
        logger.warning(
            "%s holds %d weights of layers that the model does not have, such as %s; they are left out. Is "
            "num_hidden_layers right in text_config and vision_config of its config.json?",
            name, len(layers), layers[:SHOWN],
        )  # fmt: skip
    plain = {
        key: weight.detach()
        for key, weight in model.named_parameters()
        if type(weight) is nn.Parameter and weight.dtype in PLAIN_DTYPES and not weight.is_meta
    }
    if broken := find_not_finite(plain):
        logger.warning(
            "%s holds %d weights with NaN or infinite numbers, such as %s: its answers mean nothing. Has its training "
            "diverged, or is dtype too narrow? Take another checkpoint, or load it in float32.",
            name, len(broken), broken[:SHOWN],
        )  # fmt: skip


def find_not_finite(weights: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of weights with NaN or infinite numbers, without copying them."""
    fractional = {name: weight for name, weight in weights.items() if weight.is_floating_point() and weight.numel()}
    return [name for name, weight in fractional.items() if not all(map(math.isfinite, weight.aminmax()))]


def _describe_missing(model: PreTrainedModel, name: str | os.PathLike, missing: list[str], foreign: list[str]) -> str:
    others = f"; it holds {len(foreign)} others, such as {foreign[:SHOWN]}" if foreign else ""
    return (
        f"{name} lacks {len(missing)} of the {len(model.state_dict())} weights of {type(model).__name__}: "
        f"{missing[:SHOWN]}{', ...' if len(missing) > SHOWN else ''}{others}. They would be random. Copy or download "
        "the whole checkpoint, or pass allow_missing=True to train them."
    )


def _describe_mismatched(model: PreTrainedModel, load_config: Any, mismatched: Any) -> str:
    found = [f"{key} is {tuple(saved)}, expected {tuple(own)}" for key, saved, own in sorted(mismatched)]
    path = getattr(load_config, "pretrained_model_name_or_path", None)
    return (
        f"The weights of {path or type(model).__name__} do not have the sizes in its config.json, {len(found)} are "
        f"mismatched: {'; '.join(found[:SHOWN])}. Give the config that was saved with them, or pass "
        "ignore_mismatched_sizes=True to train these anew."
    )


__all__ = [
    "IDE3DLoadingMixin",
    "check_dtype",
    "check_model_files",
    "check_place",
    "check_weight_files",
    "find_not_finite",
    "read_json_object",
]
