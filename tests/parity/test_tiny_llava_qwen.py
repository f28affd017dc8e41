"""The converted tiny checkpoint against the original: vision, tokens, language model, grounding, captioning, depth."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import load_converted_for_training
from modeling_ide3d.conversion.convert import ConversionReport, convert_checkpoint
from modeling_ide3d.conversion.restore import restore_checkpoint
from processing.regions import regions_from_boxes_3d
from processing.token_grid import TokenGrid
from trainer.losses import RegionContrastLoss

pytestmark = pytest.mark.parity

FOLDER = "tiny_llava_qwen"
ORIGINAL_IMAGE_ID = -200  # stands for all visual tokens in the original's input
VISION = {"atol": 2e-5, "rtol": 2e-5}
EMBEDDING = {"atol": 2e-5, "rtol": 2e-5}
HIDDEN = {"atol": 1e-4, "rtol": 1e-4}
SCORE = {"atol": 1e-5, "rtol": 0.0}
LOSS = {"atol": 1e-4, "rtol": 0.0}


@dataclass
class Converted:
    """The converted checkpoint beside what the original computed with it."""

    model: IDE3DForConditionalGeneration
    report: ConversionReport
    tensors: dict[str, torch.Tensor]
    record: dict
    pixel_values_videos: torch.Tensor
    world_points: torch.Tensor

    @property
    def config(self) -> IDE3DConfig:
        return self.model.config

    def expand(self, ids: torch.Tensor) -> torch.Tensor:
        """Write the video placeholder once for every visual token, as our processor does."""
        position = (ids[0] == ORIGINAL_IMAGE_ID).nonzero().item()
        return self._insert(ids, position, self.config.video_token_id)

    def expand_labels(self) -> torch.Tensor:
        position = (self.tensors["input_ids"][0] == ORIGINAL_IMAGE_ID).nonzero().item()
        return self._insert(self.tensors["labels"], position, -100)

    def _insert(self, ids: torch.Tensor, position: int, value: int) -> torch.Tensor:
        count = self.pixel_values_videos.shape[1] * self.config.tokens_per_frame
        return torch.cat([ids[0, :position], torch.full((count,), value), ids[0, position + 1 :]]).unsqueeze(0)

    def region_masks(self, boxes: torch.Tensor) -> torch.Tensor:
        grid = TokenGrid(
            self.world_points.shape[1], self.config.vision_config.patch_size, self.config.spatial_pool_stride
        )
        return regions_from_boxes_3d(boxes, self.world_points, grid).unsqueeze(0)

    def embed(self, **inputs: torch.Tensor) -> torch.Tensor:
        """What enters the language model."""
        seen = []
        hook = self.model.model.language_model.register_forward_pre_hook(
            lambda module, arguments, keywords: seen.append(keywords["inputs_embeds"]), with_kwargs=True
        )
        with torch.no_grad():
            self.model(**inputs, pixel_values_videos=self.pixel_values_videos)
        hook.remove()
        return seen[0]


@pytest.fixture(scope="module")
def converted(golden_path, golden, golden_json, tmp_path_factory) -> Converted:
    target = tmp_path_factory.mktemp("converted") / "model"
    report = convert_checkpoint(golden_path(FOLDER), target)
    frames = golden(f"{FOLDER}/frames.safetensors")
    pixels = (frames["images_uint8"].float() / 255 - 0.5) / 0.5
    world_points = frames["world_coords_96"]
    scale = pixels.shape[1] // world_points.shape[1]
    return Converted(
        model=IDE3DForConditionalGeneration.from_pretrained(target).eval(),
        report=report,
        tensors=golden(f"{FOLDER}/io.safetensors"),
        record=golden_json(f"{FOLDER}/io.json"),
        pixel_values_videos=pixels.permute(0, 3, 1, 2).unsqueeze(0),
        world_points=world_points.repeat_interleave(scale, 1).repeat_interleave(scale, 2),
    )


def test_nothing_is_missing_and_training_weights_stay_outside(converted, golden_path):
    report = converted.report
    source = load_file(golden_path(f"{FOLDER}/model.safetensors"))
    assert set(report.converted) | set(report.training_only) | set(report.dropped) == set(source)
    assert not report.newly_initialized
    assert report.added_embedding_rows == 0
    weights = load_file(report.target_dir / "model.safetensors")
    assert set(weights) == set(converted.model.state_dict()) == set(report.converted.values())
    for original, name in report.converted.items():
        assert torch.equal(weights[name], source[original]), name
    aside = load_file(report.target_dir / report.training_only_file)
    assert set(aside) == set(report.training_only)


def test_frames_are_those_of_the_original(converted):
    pixels = converted.pixel_values_videos[0]
    crop = converted.tensors["pixel_values_crop_0_0"]
    torch.testing.assert_close(pixels[:, :, : crop.shape[-2], : crop.shape[-1]], crop, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        pixels.mean((2, 3)), converted.tensors["pixel_values_mean_per_frame_channel"], atol=1e-5, rtol=0
    )


def test_vision_features_and_visual_tokens(converted):
    with torch.no_grad():
        encoded = converted.model.get_video_features(
            converted.pixel_values_videos, output_hidden_states=True, return_dict=True
        )
    torch.testing.assert_close(encoded.hidden_states[-1], converted.tensors["out.vision_hidden_states_last"], **VISION)
    tokens = encoded.pooler_output[0]
    torch.testing.assert_close(tokens, converted.tensors["out.image_tokens_with_newline"], **EMBEDDING)
    rows, cols = converted.config.token_grid
    pooled = tokens.unflatten(0, (-1, rows, cols + 1))[:, :, :cols].flatten(1, 2)
    torch.testing.assert_close(pooled, converted.tensors["out.image_features_pooled_14x14"], **EMBEDDING)


def test_embeddings_hidden_states_logits_and_loss(converted):
    tensors = converted.tensors
    labels = converted.expand_labels()
    assert torch.equal(labels, tensors["out.labels_expanded"])
    input_ids = converted.expand(tensors["input_ids"])
    torch.testing.assert_close(converted.embed(input_ids=input_ids), tensors["out.inputs_embeds"], **EMBEDDING)
    with torch.no_grad():
        outputs = converted.model(
            input_ids=input_ids, pixel_values_videos=converted.pixel_values_videos, labels=labels
        )
    torch.testing.assert_close(outputs.last_hidden_state, tensors["out.last_hidden_state"], **HIDDEN)
    torch.testing.assert_close(outputs.logits, tensors["out.logits"], **HIDDEN)
    torch.testing.assert_close(outputs.loss, tensors["out.ce_loss"], **LOSS)


def test_grounding_masks_features_scores_and_losses(converted):
    tensors = converted.tensors
    masks = converted.region_masks(tensors["objects"])
    assert torch.equal(masks[0].flatten(1), tensors["grounding.out.object_patch_masks"])

    input_ids = converted.expand(tensors["input_ids"])
    query = (converted.expand_labels() == converted.config.ground_token_id).nonzero()[0, 1]
    with torch.no_grad():
        encoded = {"video": converted.model.get_video_features(converted.pixel_values_videos, return_dict=True)}
        features, empty, _ = converted.model.model.get_region_features(input_ids, encoded, masks)
        features[empty] = converted.model.grounding_head.empty_region
        torch.testing.assert_close(features[0], tensors["grounding.out.object_features"], **EMBEDDING)
        hidden = converted.model.model(input_ids=input_ids, mm_encoder_outputs=encoded).last_hidden_state
        torch.testing.assert_close(hidden[:, query], tensors["grounding.out.ground_hidden"], **HIDDEN)
        scores = converted.model.ground(
            input_ids=input_ids, region_masks=masks, pixel_values_videos=converted.pixel_values_videos
        )
    torch.testing.assert_close(scores[0], tensors["grounding.out.scores"], **SCORE)

    loss = RegionContrastLoss(temperature=converted.config.grounding_temperature)
    names = [key.removeprefix("grounding_loss_") for key in converted.record if key.startswith("grounding_loss_")]
    assert names
    for name in names:
        targets = torch.zeros_like(scores, dtype=torch.bool)
        targets[0, converted.record[f"grounding_box_labels_{name}_after_call"][0]] = True
        assert loss(scores, targets).item() == pytest.approx(converted.record[f"grounding_loss_{name}"], abs=1e-4)


@pytest.mark.parametrize("variant", ["box0", "box_empty_mask", "no_box"])
def test_caption_reference_is_replaced(converted, variant):
    """The region's mean token, that of the whole video for an empty region, the word's own without a region."""
    tensors = converted.tensors
    inputs = {"input_ids": converted.expand(tensors["scan2cap.input_ids"])}
    if variant != "no_box":
        inputs["region_masks"] = converted.region_masks(tensors[f"scan2cap.{variant}.in.box_input"])
        assert inputs["region_masks"].sum() == converted.record[f"scan2cap_{variant}"]["mask_patches"]
    position = (inputs["input_ids"] == converted.config.ground_token_id).nonzero()[0, 1]
    embeddings = converted.embed(**inputs)
    expected = tensors[f"scan2cap.{variant}.out.ground_embedding"]
    torch.testing.assert_close(embeddings[0, position], expected, **EMBEDDING)
    expected = tensors[f"scan2cap.{variant}.out.logits_last8"]
    with torch.no_grad():
        logits = converted.model(**inputs, pixel_values_videos=converted.pixel_values_videos).logits
    torch.testing.assert_close(logits[:, -expected.shape[1] :], expected, **HIDDEN)


def test_greedy_tokens(converted):
    prompt = converted.expand(torch.tensor([converted.record["greedy_prompt_ids"]]))
    expected = converted.record["greedy_tokens"]
    generated = converted.model.generate(
        input_ids=prompt,
        pixel_values_videos=converted.pixel_values_videos,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=len(expected),
        do_sample=False,
    )
    assert generated[0, prompt.shape[1] :].tolist() == expected


def test_the_original_layout_comes_back_byte_for_byte(converted, golden_path, tmp_path):
    restore_checkpoint(converted.report.target_dir, tmp_path / "restored")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "restored" / name).read_bytes() == golden_path(f"{FOLDER}/{name}").read_bytes()


def test_depth_from_the_tower_with_the_weights_kept_aside(converted):
    tensors, vision = converted.tensors, converted.config.vision_config
    model = load_converted_for_training(converted.report.target_dir, layer_indices=(0, 1, 2, vision.num_hidden_layers))
    validator, config = model.geometric_validator.eval(), model.geometric_validator.config
    with torch.no_grad():
        states = converted.model.get_video_features(
            converted.pixel_values_videos, output_hidden_states=True, return_dict=True
        ).hidden_states
        levels = tuple(states[layer].unsqueeze(0) for layer in config.layer_indices)
        output = validator(levels, converted.config.patch_grid)
    for level in (0, 1):
        expected = tensors[f"train.out.multilevel{level}_frame0_first8tokens"]
        torch.testing.assert_close(levels[level][0, 0, : len(expected)], expected, **VISION)
    assert torch.equal(levels[2], levels[3]) == bool(tensors["train.out.multilevel2_equals_last"])
    depth, confidence = tensors["train.out.dpt_depth_stride9"], tensors["train.out.dpt_depth_conf_stride9"]
    assert list(output.depth.shape) == converted.record["dpt_depth_shape"][:-1]
    stride = output.depth.shape[-1] // depth.shape[-1]
    torch.testing.assert_close(output.depth[0, :, ::stride, ::stride], depth, **VISION)
    torch.testing.assert_close(output.confidence[0, :, ::stride, ::stride], confidence, **VISION)


def test_eager_and_sdpa_agree_on_the_converted_model(converted):
    inputs = {
        "input_ids": converted.expand(converted.tensors["input_ids"]),
        "pixel_values_videos": converted.pixel_values_videos,
    }
    eager = IDE3DForConditionalGeneration.from_pretrained(converted.report.target_dir, attn_implementation="eager")
    with torch.no_grad():
        torch.testing.assert_close(eager.eval()(**inputs).logits, converted.tensors["out.logits"], **HIDDEN)
