"""Backbones of Transformers with small random weights: their patches, in their places, and nothing else."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    DPTImageProcessor,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from processing.token_grid import TokenGrid
from processing.token_pooling import pool_teacher_features
from trainer.teachers import TransformersTeacher

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VIT = {**SMALL, "intermediate_size": 32}
TEXT = {**VIT, "vocab_size": 50, "num_hidden_layers": 1, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
GRID = TokenGrid(56, 14, 1)


def backbone(patch, image, model_class=Dinov2Config):
    return model_class(**SMALL, mlp_ratio=2, image_size=image, patch_size=patch)


def depth_anything():
    config = Dinov2Config(
        **SMALL,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=config,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8],
            reassemble_factors=[1, 0.5],
            fusion_hidden_size=8,
            head_hidden_size=4,
        )
    )


def siglip2():
    vision = {**VIT, "patch_size": 8, "num_patches": 16}
    return Siglip2Model(Siglip2Config(text_config=TEXT, vision_config=vision))


def siglip():
    vision = {**VIT, "image_size": 56, "patch_size": 14}
    return SiglipModel(SiglipConfig(text_config=TEXT, vision_config=vision))


# Model, image processor, patch size, side of the input by default.
FAMILIES = {
    "dinov2_with_registers": (
        lambda: Dinov2WithRegistersModel(backbone(14, 56, Dinov2WithRegistersConfig)),
        BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}),
        14,
        56,
    ),
    "dinov3_vit": (
        lambda: DINOv3ViTModel(DINOv3ViTConfig(**VIT, patch_size=8, image_size=32, num_register_tokens=2)),
        DINOv3ViTImageProcessor(size={"height": 32, "width": 32}),
        8,
        32,
    ),
    "siglip_vision_model": (
        lambda: SiglipVisionModel(SiglipVisionConfig(**VIT, image_size=60, patch_size=14)),
        SiglipImageProcessor(size={"height": 60, "width": 60}),
        14,
        60,
    ),
    "siglip": (siglip, SiglipImageProcessor(size={"height": 56, "width": 56}), 14, 56),
    "siglip2": (siglip2, Siglip2ImageProcessor(patch_size=8, max_num_patches=17), 8, 32),
    "clip_vision_model": (
        lambda: CLIPVisionModel(CLIPVisionConfig(**VIT, image_size=56, patch_size=14)),
        CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
        14,
        56,
    ),
    "depth_anything": (depth_anything, DPTImageProcessor(size={"height": 56, "width": 56}), 14, 56),
    "dinov3_convnext": (
        lambda: DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[4, 8, 8, 16], depths=[1, 1, 1, 1])),
        DINOv3ViTImageProcessor(size={"height": 64, "width": 64}),
        16,  # the coarser stages are left out below
        64,
    ),
}
TRANSFORMERS = [name for name in FAMILIES if name != "dinov3_convnext"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, dinov2):
    """Folder of every family's small model."""
    made = {"dinov2": dinov2}
    for name, (build, processor, *_) in FAMILIES.items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        build().save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


def load(folders, name, **options):
    return TransformersTeacher(folders[name], **{"licence": "mit", **options})


def frames(views=3, height=40, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (views, height, width, 3), np.uint8)


def to_pixels(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def changed_patch(teacher, rows, columns, row, column):
    """Patch whose features change most when the picture does in the middle of one patch of rows x columns."""
    plain = torch.full((1, 3, *teacher.image_size), 128, dtype=torch.uint8)
    spotted = plain.clone()
    height, width = plain.shape[2] // rows, plain.shape[3] // columns
    spotted[..., row * height : (row + 1) * height, column * width : (column + 1) * width] = 255
    change = (teacher.compute_patches(spotted)[0] - teacher.compute_patches(plain)[0]).norm(dim=-1)[0]
    return change.shape, divmod(int(change.argmax()), columns)


@pytest.mark.parametrize("name", ["dinov2", *TRANSFORMERS])
def test_patches_are_in_their_places(folders, name):
    """On 3 x 5 patches, whatever class and register tokens stand before them."""
    patch = 14 if name == "dinov2" else FAMILIES[name][2]
    teacher = load(folders, name, image_size=(3 * patch, 5 * patch))
    for place in ((0, 0), (0, 4), (2, 0), (1, 3), (2, 4)):
        assert changed_patch(teacher, 3, 5, *place) == ((3, 5), place)


def test_a_pyramid_of_convolutions_gives_its_map(folders):
    teacher = load(folders, "dinov3_convnext", image_size=(96, 160))
    patches, window = teacher.compute_patches(to_pixels(frames(2)))
    assert patches.shape == (2, 3, 5, 16) and window == (0.0, 0.0, 1.0, 1.0)
    assert changed_patch(teacher, 3, 5, 2, 1) == ((3, 5), (2, 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_input_has_the_size_of_the_image_processor(folders, name):
    """Also where it would cut a crop out of the middle."""
    assert load(folders, name).image_size == (FAMILIES[name][3],) * 2


def test_input_is_that_of_the_image_processor(folders):
    """Where the frame has its size and nothing is cut off, the numbers are the same."""
    teacher = load(folders, "siglip")
    processor = SiglipImageProcessor.from_pretrained(folders["siglip"])
    model = SiglipModel.from_pretrained(folders["siglip"]).vision_model.eval()
    array = frames(2, 56, 56)
    with torch.no_grad():
        inputs = processor([Image.fromarray(frame) for frame in array], return_tensors="pt")
        expected = model(**inputs).last_hidden_state
    patches, _ = teacher.compute_patches(to_pixels(array))
    torch.testing.assert_close(patches.flatten(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_input_of_siglip2_is_that_of_its_image_processor(folders):
    teacher = load(folders, "siglip2", image_size=(16, 32))
    processor = Siglip2ImageProcessor.from_pretrained(folders["siglip2"])
    model = Siglip2Model.from_pretrained(folders["siglip2"]).vision_model.eval()
    array = frames(2, 16, 32)
    with torch.no_grad():
        inputs = processor([Image.fromarray(frame) for frame in array], max_num_patches=8, return_tensors="pt")
        assert inputs["spatial_shapes"].tolist() == [[2, 4], [2, 4]]
        expected = model(**inputs).last_hidden_state
    patches, window = teacher.compute_patches(to_pixels(array))
    assert window == (0.0, 0.0, 1.0, 1.0)
    torch.testing.assert_close(patches.flatten(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_class_and_register_tokens_are_left_out(folders):
    teacher = load(folders, "dinov3_vit")
    model = DINOv3ViTModel.from_pretrained(folders["dinov3_vit"]).eval()
    processor = DINOv3ViTImageProcessor.from_pretrained(folders["dinov3_vit"])
    array = frames(2, 32, 32)
    with torch.no_grad():
        tokens = model(**processor(list(array), return_tensors="pt")).last_hidden_state
    assert tokens.shape[1] == 1 + 2 + 16
    patches, _ = teacher.compute_patches(to_pixels(array))
    torch.testing.assert_close(patches.flatten(1, 2), tokens[:, 3:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["siglip_vision_model", "siglip2", "dinov2"])
def test_patches_that_do_not_fill_the_input(folders, name):
    """The rest at the right and below is seen by no patch, and pooling knows it."""
    patch = {"siglip2": 8}.get(name, 14)
    size = (4 * patch + patch // 2, 4 * patch + 4)
    teacher = load(folders, name, image_size=size)
    array = frames(2, *size)
    patches, window = teacher.compute_patches(to_pixels(array))
    assert patches.shape[1:3] == (4, 4)
    assert window == (0.0, 0.0, 4 * patch / size[0], 4 * patch / size[1])
    hidden = array.copy()
    hidden[:, 4 * patch :], hidden[:, :, 4 * patch :] = 0, 0
    assert torch.equal(teacher.compute_patches(to_pixels(hidden))[0], patches)
    features = teacher.compute_features(array, None, GRID)
    assert torch.equal(features, pool_teacher_features(patches, GRID, window=window))
    assert not torch.allclose(features, pool_teacher_features(patches, GRID))


def test_protocol_says_how_patches_are_pooled(folders):
    grid = TokenGrid(60, 14, 2)
    array = frames()
    clean, paper = (
        load(folders, "dinov2", protocol=protocol).compute_features(array, None, grid)
        for protocol in ("clean", "paper")
    )
    patches, window = load(folders, "dinov2").compute_patches(to_pixels(array))
    assert torch.equal(paper, pool_teacher_features(patches, grid, window=window, protocol="paper"))
    assert clean.shape == paper.shape == (3, 2, 2, 16) and not torch.allclose(clean, paper)
    with pytest.raises(ValueError, match="protocol"):
        load(folders, "dinov2", protocol="old")


def test_frames_may_be_pictures_and_batches_may_be_small(folders):
    array = frames(5)
    whole = load(folders, "dinov2").compute_features(array, None, GRID)
    pictures = [Image.fromarray(frame) for frame in array]
    single = load(folders, "dinov2", batch_size=2).compute_features(pictures, None, GRID)
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-4)
    assert whole.dtype == torch.float32 and not whole.requires_grad


@pytest.mark.parametrize("wrong", [frames().astype(np.float32), frames()[..., :1]], ids=["float", "grey"])
def test_other_frames_are_refused(folders, wrong):
    with pytest.raises(ValueError, match="uint8 RGB"):
        load(folders, "dinov2").compute_features(wrong, None, GRID)


def test_layers(folders):
    last, first = (load(folders, "dinov2", layer=layer) for layer in (2, 1))
    array = frames()
    default = load(folders, "dinov2").compute_features(array, None, GRID)
    assert torch.equal(last.compute_features(array, None, GRID), default)
    assert not torch.allclose(first.compute_features(array, None, GRID), default)
    assert first.version != last.version
    with pytest.raises(ValueError, match="`layer` needs a backbone class of `AutoBackbone`, which siglip has not"):
        load(folders, "siglip", layer=1)


def test_depth_anything_gives_the_backbone_before_the_neck(folders):
    model = DepthAnythingForDepthEstimation.from_pretrained(folders["depth_anything"]).eval()
    processor = DPTImageProcessor.from_pretrained(folders["depth_anything"])
    array = frames(2, 56, 56)
    with torch.no_grad():
        tokens = model.backbone(processor(list(array), return_tensors="pt")["pixel_values"]).feature_maps[-1]
    assert tokens.shape[1] == 1 + 16
    patches, _ = load(folders, "depth_anything").compute_patches(to_pixels(array))
    torch.testing.assert_close(patches.flatten(1, 2), tokens[:, 1:], atol=1e-5, rtol=1e-4)


class TestIdentity:
    def test_of_the_folder(self, dinov2):
        teacher = TransformersTeacher(dinov2)
        assert (teacher.name, teacher.licence, teacher.feature_size) == ("tiny", "apache-2.0", 16)
        assert "56 x 56" in teacher.preprocessing and "float32" in teacher.preprocessing
        assert TransformersTeacher(dinov2, licence="mit").licence == "mit"

    def test_version_is_that_of_the_weights(self, dinov2, save_dinov2, tmp_path):
        """Wherever they lie."""
        copy = shutil.copytree(dinov2, tmp_path / "copy")
        version = TransformersTeacher(dinov2).version
        assert version == TransformersTeacher(copy).version
        assert version != TransformersTeacher(save_dinov2(seed=1)).version

    def test_preprocessing_tells_other_inputs_apart(self, dinov2):
        kinds = [{}, {"image_size": (42, 56)}, {"dtype": torch.bfloat16}]
        assert len({TransformersTeacher(dinov2, **kind).preprocessing for kind in kinds}) == 3

    def test_a_licence_has_to_be_stated(self, save_dinov2):
        with pytest.raises(ValueError, match="No model card states the licence of .*tiny. Say it yourself"):
            TransformersTeacher(save_dinov2(licence=None))
        own = save_dinov2(licence="other\nlicense_name: dinov3-license")
        assert TransformersTeacher(own).licence == "dinov3-license"

    def test_a_name_that_is_not_there(self):
        with pytest.raises(OSError, match="nobody/nothing is no folder or Hub name of a backbone"):
            TransformersTeacher("nobody/nothing", licence="mit")


def test_missing_weights_are_no_teacher(dinov2, tmp_path):
    folder = shutil.copytree(dinov2, tmp_path / "cut")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.attention.attention.query.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights of Dinov2Backbone: .*layer.1.attention"):
        TransformersTeacher(folder)


def test_an_input_below_one_patch_is_refused(dinov2):
    with pytest.raises(ValueError, match=r"at least one patch of 14 px, got \(13, 56\)"):
        TransformersTeacher(dinov2, image_size=(13, 56))


def test_broken_weights_are_not_passed_on(dinov2, tmp_path):
    folder = shutil.copytree(dinov2, tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    weights["layernorm.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not finite"):
        TransformersTeacher(folder).compute_features(frames(), None, GRID)
