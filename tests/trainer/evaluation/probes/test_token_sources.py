import numpy as np
import pytest
import torch
import transformers
from exporting import build_model, build_processor, build_training_model
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    Qwen2Config,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
)

from trainer.evaluation.probes import token_sources
from trainer.evaluation.probes.token_sources import IDE3DTokens, VisionTowerTokens, open_token_source

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 46,
    "patch_size": 14,
}
TOWERS = {
    "siglip": (SiglipVisionConfig(**SMALL, vision_use_head=False), 0),
    "clip": (CLIPVisionConfig(**SMALL), 1),
    "vit": (ViTConfig(**SMALL), 1),
    "dinov2": (Dinov2Config(**SMALL), 1),
    "registers": (Dinov2WithRegistersConfig(**SMALL, num_register_tokens=4), 5),
}
HALF = [0.5] * 3


def build(config):
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).eval()


def lit_frames(row, col, *, size=46, patch=14):
    """A black frame, and one with one white patch."""
    frames = np.zeros((2, size, size, 3), np.uint8)
    frames[1, row * patch : (row + 1) * patch, col * patch : (col + 1) * patch] = 255
    return frames


def changed_cells(tokens):
    """Cells in which the two frames differ."""
    return ((tokens[0] - tokens[1]).abs().amax(-1) > 1e-4).nonzero().tolist()


@pytest.mark.parametrize("name", TOWERS)
def test_a_patch_of_a_tower_is_the_token_at_its_place(name):
    config, prefix = TOWERS[name]
    source = VisionTowerTokens(build(config), HALF, HALF)
    assert source.grid("vision.0").shape == (3, 3)
    found = source.encode(lit_frames(2, 1), ["vision.0", "vision.3", "vision.last"])
    assert changed_cells(found["vision.0"]) == [[2, 1]]
    assert all(tokens.shape == (2, 3, 3, 32) and tokens.dtype == torch.float32 for tokens in found.values())
    pixels = source._preprocess(lit_frames(2, 1), do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
    outputs = source.model(pixels[0], output_hidden_states=True)
    torch.testing.assert_close(found["vision.3"].flatten(1, 2), outputs.hidden_states[3][:, prefix:])
    torch.testing.assert_close(found["vision.last"].flatten(1, 2), outputs.last_hidden_state[:, prefix:])


def test_two_encoders_in_one_model_give_the_one_that_sees():
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config=SMALL, text_config={**text, "vocab_size": 50})
    source = VisionTowerTokens(build(config), HALF, HALF)
    assert changed_cells(source.encode(lit_frames(0, 2), ["vision.0"])["vision.0"]) == [[0, 2]]


@pytest.mark.parametrize("name", TOWERS)
def test_a_larger_input_has_more_patches(name):
    source = VisionTowerTokens(build(TOWERS[name][0]), HALF, HALF, image_size=70)
    frames = lit_frames(4, 0, size=70)
    assert changed_cells(source.encode(frames, ["vision.0"])["vision.0"]) == [[4, 0]]


def test_frames_are_encoded_in_pieces_and_normalised(monkeypatch):
    source = VisionTowerTokens(build(TOWERS["siglip"][0]), HALF, HALF)
    frames = np.random.default_rng(0).integers(0, 256, (5, 60, 80, 3), dtype=np.uint8)
    whole = source.encode(frames, ["vision.2"])["vision.2"]
    monkeypatch.setattr(token_sources, "FRAMES_AT_ONCE", 2)
    torch.testing.assert_close(source.encode(frames, ["vision.2"])["vision.2"], whole)
    other = VisionTowerTokens(source.model, [0.4] * 3, [0.2] * 3).encode(frames, ["vision.2"])["vision.2"]
    assert (other - whole).abs().max() > 1e-2


def test_models_that_are_no_such_towers_are_refused():
    swin = SwinConfig(image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=4)
    source = VisionTowerTokens(build(swin), HALF, HALF)
    with pytest.raises(ValueError, match="merge, mask or reorder patches"):
        source.encode(np.zeros((1, 32, 32, 3), np.uint8), ["vision.last"])
    text = Qwen2Config(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    with pytest.raises(ValueError, match="qwen2 is no tower .* `patch_size` is None"):
        VisionTowerTokens(build(text), HALF, HALF)
    with pytest.raises(ValueError, match="training mode"):
        VisionTowerTokens(build(TOWERS["vit"][0]).train(), HALF, HALF)


@pytest.fixture(scope="module")
def ours():
    """A model of 5 x 5 patches and 3 x 3 tokens, and its source."""
    processor = build_processor()
    return IDE3DTokens(build_training_model(processor), processor)


def test_layers_of_ours_are_the_states_of_the_model(ours, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
    assert ours.layers == ("vision.0", "vision.1", "vision.2", "language.0", "language.1", "language.2")
    found = ours.encode(frames, ours.layers)
    monkeypatch.setattr(token_sources, "FRAMES_AT_ONCE", 2)
    for layer, tokens in ours.encode(frames, ours.layers).items():
        torch.testing.assert_close(tokens, found[layer])
    question = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where is the lamp?"}]}]
    text = ours.processor.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    inputs = ours.processor(text=[text], videos=[frames], do_sample_frames=False, return_tensors="pt")
    with torch.no_grad():
        vision = ours.model.get_video_features(
            inputs["pixel_values_videos"], output_hidden_states=True, return_dict=True
        )
        states = ours.model.model(**inputs, output_hidden_states=True, return_dict=True)
    for layer in range(3):
        patches = found[f"vision.{layer}"]
        assert patches.shape[:3] == (3, *ours.grid("vision.0").shape) == (3, 5, 5)
        torch.testing.assert_close(patches.flatten(1, 2), vision.hidden_states[layer])
        # A question behind the video changes nothing of what its tokens are.
        visual = states.hidden_states[layer][inputs["input_ids"] == ours.processor.video_token_id]
        tokens = found[f"language.{layer}"]
        assert tokens.shape[:3] == (3, *ours.grid("language.0").shape) == (3, 3, 3)
        torch.testing.assert_close(tokens, visual.view(3, 3, 4, -1)[:, :, :3])
    torch.testing.assert_close(found["language.0"], vision.pooler_output[0].view(3, 3, 4, -1)[:, :, :3])


def test_a_patch_of_ours_is_the_token_at_its_place(ours):
    frames = lit_frames(0, 4, size=70)
    found = ours.encode(frames, ["vision.0", "language.0"])
    assert changed_cells(found["vision.0"]) == [[0, 4]]
    near, far = ((found["language.0"][0] - found["language.0"][1])[cell].norm() for cell in ((0, 2), (2, 0)))
    assert near > 3 * far


def test_layers_that_losses_read_are_known_from_the_heads(ours):
    assert ours.read_by_losses == {"vision.0", "vision.1", "vision.2", "language.2"}
    processor = ours.processor
    assert IDE3DTokens(build_model(processor), processor).read_by_losses is None
    assert IDE3DTokens(ours.model, processor, ["vision.1"]).read_by_losses == {"vision.1"}
    with pytest.raises(ValueError, match=r"no layers \['vision.9'\]; there are vision.0"):
        IDE3DTokens(ours.model, processor, ["vision.9"])
    with pytest.raises(ValueError, match="training mode"):
        IDE3DTokens(build_model(processor).train(), processor)


def test_models_are_opened_by_their_folder(tmp_path, ours):
    model = build_model(ours.processor)
    model.save_pretrained(tmp_path / "ours")
    ours.processor.save_pretrained(tmp_path / "ours")
    build(TOWERS["siglip"][0]).save_pretrained(tmp_path / "tower")
    SiglipImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "tower")
    frames = lit_frames(1, 1, size=70)
    opened = open_token_source(str(tmp_path / "ours"), read_by_losses=["vision.2"])
    assert opened.read_by_losses == {"vision.2"}
    expected = IDE3DTokens(model, ours.processor).encode(frames, ["language.2"])["language.2"]
    torch.testing.assert_close(opened.encode(frames, ["language.2"])["language.2"], expected)
    tower = open_token_source(str(tmp_path / "tower"))
    assert tuple(tower._preprocess.image_mean) == (0.1, 0.2, 0.3)
    assert changed_cells(tower.encode(lit_frames(1, 2), ["vision.0"])["vision.0"]) == [[1, 2]]
    for name in ("ours", "tower"):
        drawn = [
            open_token_source(str(tmp_path / name), random_weights=True, seed=seed).encode(frames, ["vision.1"])
            for seed in (0, 0, 1)
        ]
        assert (drawn[0]["vision.1"] == drawn[1]["vision.1"]).all()
        assert (drawn[0]["vision.1"] != drawn[2]["vision.1"]).any()
    with pytest.raises(ValueError, match="leave `image_size` out"):
        open_token_source(str(tmp_path / "ours"), image_size=70)
    with pytest.raises(ValueError, match="no geometry loss read this tower"):
        open_token_source(str(tmp_path / "tower"), read_by_losses=["vision.1"])
    with pytest.raises(OSError):
        open_token_source(str(tmp_path / "nothing"))
