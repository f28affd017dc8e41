"""Our processor under the mixin for processors, with a tiny tokenizer."""

import importlib.util
import unittest
from pathlib import Path

from transformers_tests.test_processing_common import ProcessorTesterMixin

from processing import IDE3DProcessor

_spec = importlib.util.spec_from_file_location("tiny_parts", Path(__file__).parents[2] / "processing" / "conftest.py")
tiny_parts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_parts)


class TestProcessor(ProcessorTesterMixin, unittest.TestCase):
    processor_class = IDE3DProcessor

    video_sampling_expectations = [
        {"num_frames": 3, "fps": None, "expected_dim": 1, "output_length": 3},
        # 11 frames at 30 a second: 0, 0.1, 0.2 and 0.3 s; the mixin expects the whole tenths of the duration.
        {"num_frames": None, "fps": 10, "expected_dim": 1, "output_length": 4},
        {"do_sample_frames": False, "fps": 10, "expected_dim": 1, "output_length": 11},
        {"expected_dim": 1, "output_length": 11},
    ]

    @staticmethod
    def prepare_processor_dict():
        return {"image_size": 70, "patch_size": 14, "spatial_pool_stride": 2}

    @classmethod
    def _setup_from_components(cls):
        return tiny_parts.build_tiny_processor(num_frames=32)
