"""Geometry of posed depth frames: pure functions on tensors, no weights, nothing of the model.

Conventions that hold everywhere in this package:

- B batch, V views (frames), N frame pairs (flattened over the batch), H and W pixels.
- depth: z-depth in metres (not ray length); 0 means no measurement.
- intrinsics: (..., 3, 3) of the pixels they travel with. Integer coordinates are pixel centres, the top-left one is
  (0, 0).
- camera_to_world: (..., 4, 4), OpenCV axes (x right, y down, z forward), metres. world_to_camera is its inverse.
- target_from_source = inverse(camera_to_world[target]) @ camera_to_world[source]. Transforms read right to left.
- protocol: "clean" is the rule as it should be, "paper" repeats the original implementation with its oddities.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
