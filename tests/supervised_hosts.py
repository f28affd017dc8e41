"""Targets for the tiny models of other families, and a look at what supervision does to a model."""

import torch
from torch import nn

from trainer import GeometrySupervision

VIEWS, TEACHER_SIZE = 4, 6
DEPTH_TERMS = {"loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency"}
ALL = dict.fromkeys(DEPTH_TERMS, 0.1)


def frames(*samples):
    return [None if sample is None else sample["frames"] for sample in samples]


def geometry(*samples, keys=("depth", "intrinsics", "camera_to_world")):
    """Targets as lists. The room's intrinsics are of the frames, whose size its depth has."""
    given = {key: [None if s is None else torch.as_tensor(s[key]).float() for s in samples] for key in keys}
    return {key: values for key, values in given.items() if any(value is not None for value in values)}


def teacher(supervision, inputs, samples, seed=0):
    """Random features on the token grid of each video."""
    generator = torch.Generator().manual_seed(seed)
    places = {place.sample: place for place in supervision.layout.find_videos(inputs["input_ids"], inputs)}
    return [
        torch.randn(len(sample["frames"]), *places[index].grid.shape, TEACHER_SIZE, generator=generator)
        if index in places
        else None
        for index, sample in enumerate(samples)
    ]


def attach(model, seed=0, **options):
    torch.manual_seed(seed)
    options = {"validator": "light", "teacher_size": TEACHER_SIZE, **options}
    return GeometrySupervision.attach(model, **options)


def hooks(model):
    """Hooks of each module that has any; Transformers puts some in itself when a model first runs."""
    kinds = [kind for kind in vars(nn.Module()) if "hooks" in kind]
    found = {}
    for name, module in model.named_modules():
        for kind in kinds:
            held = getattr(module, kind)
            if held:
                found[name, kind] = len(held)
    return found


def moved(module):
    return {name for name, weight in module.named_parameters() if weight.grad is not None and weight.grad.any()}
