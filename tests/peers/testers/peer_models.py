"""Our model classes under the mixins for models, and for generation where those are at hand."""

import unittest

import torch
from conftest import build_tiny_config
from transformers_tests.generation.test_utils import GenerationTesterMixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from modeling_ide3d import IDE3DConfig, IDE3DForConditionalGeneration, IDE3DModel

WORDS = 7


class TinyInputs:
    """A tiny model, and a batch with an image in each text."""

    batch_size, is_training = 3, True

    def __init__(self, parent):
        self.parent = parent
        config = self.get_config()
        text, vision = config.text_config, config.vision_config
        self.hidden_size, self.num_hidden_layers = text.hidden_size, text.num_hidden_layers
        self.num_attention_heads, self.vocab_size = text.num_attention_heads, text.vocab_size
        self.image_size, self.num_channels, self.patch_size = vision.image_size, 3, vision.patch_size
        self.seq_length = config.tokens_per_frame + WORDS
        self.text_config, self.vision_config = text.to_dict(), vision.to_dict()

    def get_config(self):
        return build_tiny_config()

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        words = ids_tensor([self.batch_size, WORDS], 90) + 3
        placeholders = torch.full((self.batch_size, config.tokens_per_frame), config.image_token_id)
        input_ids = torch.cat([placeholders, words], dim=1)
        pixels = floats_tensor([self.batch_size, self.num_channels, self.image_size, self.image_size])
        return config, {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": pixels,
        }

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class OfModels:
    all_model_classes = (IDE3DModel, IDE3DForConditionalGeneration)
    pipeline_model_mapping = {}
    _is_composite = True
    # Tokens of all images, or of all frames, have one dimension.
    skip_test_image_features_output_shape = skip_test_video_features_output_shape = True

    def setUp(self):
        self.model_tester = TinyInputs(self)
        if self._testMethodName.startswith("test_training"):  # the mixin knows classes without a loss by their names
            self.all_model_classes = (IDE3DForConditionalGeneration,)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is IDE3DForConditionalGeneration:  # its name is in no list of the mixin's
            inputs["labels"] = inputs["input_ids"].clone()
        return inputs

    def _video_features_prepare_config_and_inputs(self):
        tester = self.model_tester
        frames = floats_tensor([tester.batch_size, 2, tester.num_channels, tester.image_size, tester.image_size])
        return tester.get_config(), {"pixel_values_videos": frames}


class TestModels(OfModels, ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    def test_config(self):
        ConfigTester(self, config_class=IDE3DConfig, has_text_modality=False).run_common_tests()
