"""Our video processor under the mixin for video processors."""

import unittest

from transformers_tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from processing import IDE3DVideoProcessor

SIDE = 20


class Videos:
    batch_size, num_frames, num_channels = 3, 8, 3

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        sizes = {"min_resolution": 30, "max_resolution": 80, "equal_resolution": equal_resolution}
        return prepare_video_inputs(
            self.batch_size, self.num_frames, self.num_channels, return_tensors=return_tensors, **sizes
        )

    def expected_output_video_shape(self, videos):
        return self.num_frames, self.num_channels, SIDE, SIDE


class TestVideoProcessor(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = IDE3DVideoProcessor
    test_cast_dtype = True
    video_processor_dict = {"size": {"height": SIDE, "width": SIDE}, "do_resize": True, "do_normalize": True}

    def setUp(self):
        super().setUp()
        self.video_processor_tester = Videos()

    def test_video_processor_from_dict_with_kwargs(self):
        """The mixin has the sizes of a class that crops."""
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict, size=42)
        self.assertEqual(processor.size, {"height": 42, "width": 42})
