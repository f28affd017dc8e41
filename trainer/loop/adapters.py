"""Low-rank adapters of PEFT on a training model, and the model without them again."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from transformers.utils import is_peft_available

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry

if is_peft_available():
    import peft

# The vision tower too: the geometry terms are there to train what it sees.
ADAPTED = (
    r"model\.(vision_tower|language_model)\..*\."
    r"(q_proj|k_proj|v_proj|o_proj|out_proj|gate_proj|up_proj|down_proj|fc1|fc2)"
)
# Small, and the second has no weights in a checkpoint that was never trained to find objects.
TRAINED_WHOLE = ["multi_modal_projector", "grounding_head"]
TABLES = ["embed_tokens", "lm_head"]


def add_adapters(
    model: IDE3DForConditionalGenerationWithGeometry,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    tokens: Sequence[int] = (),
) -> nn.Module:
    """Put adapters on every linear layer of vision tower and language model.

    Projector and grounding head are trained whole, and `IDE3DTrainer` trains validator and teacher projector too.
    Trained weights become float32: an optimizer rounds small updates of lower precision away. Train in mixed precision
    where the other weights have less.

    Args:
        model: Training model; its weights are frozen and keep their precision.
        rank: Rank of the adapters.
        alpha: Scale of the adapters, divided by the rank; default: twice the rank.
        dropout: Dropout probability of the input of the adapters.
        tokens: Tokens whose rows of the embedding, and of a head of its own, are trained too: those that a tokenizer
            was given.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If the rank is below 1.
    """
    if not is_peft_available():
        raise ImportError("Adapters need PEFT: pip install peft.")
    if rank < 1:
        raise ValueError(f"The rank of adapters must be at least 1, got {rank}.")
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    tables = TABLES[:1] if is_tied else TABLES
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=ADAPTED,
        modules_to_save=TRAINED_WHOLE,
        trainable_token_indices={name: list(tokens) for name in tables} if tokens else None,
    )
    adapted = peft.get_peft_model(model, config)
    heads = model.geometry_parameters()
    for parameter in (*heads, *(value for value in adapted.parameters() if value.requires_grad)):
        parameter.data = parameter.data.float()
    return adapted


def merge_adapters(model: nn.Module) -> nn.Module:
    """Merge adapters into their model; a model without adapters stays as it is.

    Head and embedding of a tied model get weights of their own where their adapters differ.
    """
    if not (is_peft_available() and isinstance(model, peft.PeftModel)):
        return model
    _separate_weights(model)
    merged = model.merge_and_unload()
    merged.settle_tied_weights()
    return merged


def _separate_weights(model: nn.Module) -> None:
    """Give each module weights of its own.

    PEFT adds the updates of a tied head and of its embedding to their one tensor.
    """
    owners: dict[nn.Parameter, nn.Module] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if owners.setdefault(weight, module) is not module:
                setattr(module, name, nn.Parameter(weight.detach().clone(), weight.requires_grad))


def load_and_merge_adapters(model: nn.Module, folder: str | Path) -> nn.Module:
    """Merge stored adapters into the weights of the model that they are for.

    Args:
        model: The model that the adapters were trained on; its weights change.
        folder: Folder with `adapter_config.json`.

    Raises:
        ImportError: PEFT is not installed.
    """
    if not is_peft_available():
        raise ImportError(f"{folder} holds adapters, which need PEFT: pip install peft.")
    return merge_adapters(peft.PeftModel.from_pretrained(model, str(folder)))


__all__ = ["add_adapters", "load_and_merge_adapters", "merge_adapters"]
