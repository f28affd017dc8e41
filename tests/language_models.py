"""Random language models, with tokenizers of other ids than the nano model's of the same words."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.nano.build import build_nano_processor

TEXTS = ["What colour is the sofa?", "Where is the table?", "It is red.", "It is to the left."] * 50


def write_language_model(folder, kind=LlamaForCausalLM, config=LlamaConfig, **changes):
    """A random language model with a tokenizer of other ids."""
    tokenizer = build_nano_processor(TEXTS[::-1], vocab_size=320).tokenizer
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-3}
    fields = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "tie_word_embeddings": True}
    torch.manual_seed(1)
    kind(config(**{**sizes, **heads, **fields, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Words\n", encoding="utf-8")
    return str(folder)
