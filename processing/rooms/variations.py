"""Variations of rooms: cameras of a hand-held walk, faults of a camera, and looks beyond those of a style.

A variation changes one thing, and its draws depend on the room and on its own name alone: rooms with and without it
share everything else that the walk allows.
"""

import hashlib
import io
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from PIL import Image
from scipy import ndimage

from processing.rooms.scene.layout import Room
from processing.rooms.scene.palette import pick, shade
from processing.rooms.scene.primitives import Material, Primitive
from processing.rooms.scene.shell import Lighting, Shell

__all__ = ["VARIATIONS", "RoomVariations"]

VARIATIONS = (
    "pitch",
    "height",
    "roll",
    "field_of_view",
    "blur",
    "exposure",
    "noise",
    "jpeg",
    "holes",
    "texture",
    "light",
)

# Least and largest value of poses and intrinsics in the first 500 frames of RedKitchen of 7-Scenes, as printed by
# `tests/benchmarks/walk_cameras.py`. No colour of these frames was looked at.
PITCH = (-33.0, -17.0)  # degrees, mean of a walk, positive is up
HEIGHT = (1.18, 1.51)  # metres, mean of a walk
ROLL = (-13.6, 13.6)  # degrees, mean of a walk; to both sides, because the sign is the person's
WIDE = (55.0, 60.0)  # degrees across, around the 57.4 of that one camera
SHAPE = 0.75  # height by width of its pictures, which are squashed to a square
STREAK = (0.002, 0.013)  # of the width: its turn a frame of 30 Hz (0.11 to 0.75 degrees), open all that time
HOLES = (0.05, 0.25)  # of a frame's pixels without depth

# Not fitted: pictures were not looked at. Wide enough for the automatic exposure and white balance of cheap cameras.
STOPS = (-0.8, 0.8)  # of exposure, in powers of two
WHITE = (0.85, 1.15)  # of each channel
NOISE = (0.0, 0.03)  # standard deviation, sRGB in [0, 1]
QUALITY = (40, 95)  # of JPEG

_SURFACES = ("plain", "plaster", "wood", "stripes", "fabric", "weave", "brick", "planks", "tiles", "rug")
_FURNITURE_SURFACES = ("plain", "plaster", "wood", "stripes", "fabric", "weave", "planks")
_KEPT = ("books", "leaves", "art", "sky")  # patterns that say what a thing is
_SCALES = (0.03, 0.6)  # metres
_GAINS = (0.3, 2.0)  # of lamp, daylight and bounced light
_TINT = (0.75, 1.25)  # of each channel of the lamp


def _random_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    value, tint = rng.uniform(0.15, 0.95), rng.uniform(0.6, 1.0, 3)
    return tuple(float(c) for c in value * tint / tint.max())


class RoomVariations:
    """Variations of one room.

    Args:
        names: Entries of `VARIATIONS`.
        scene: Name of the room, which the draws depend on.
    """

    def __init__(self, names: Collection[str], scene: str):
        self.names, self.scene = frozenset(names), scene

    def _rng(self, name: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.scene}/{name}".encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, np.uint32))

    def choose_countable(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """Return the kinds that a room may be built around.

        A narrow view that looks down shows neither pictures nor pendants, so nobody could count them.
        """
        if not {"pitch", "field_of_view"} <= self.names:
            return kinds
        return tuple(kind for kind in kinds if kind not in ("picture", "pendant"))

    def vary_intrinsics(self, intrinsics: np.ndarray) -> np.ndarray:
        """Return the camera (3, 3) of a wide picture that is squashed to the square frame."""
        if "field_of_view" not in self.names:
            return intrinsics
        size = 2 * intrinsics[0, 2] + 1
        tangent = np.tan(np.deg2rad(self._rng("field_of_view").uniform(*WIDE)) / 2)
        result = intrinsics.copy()
        result[0, 0], result[1, 1] = size / 2 / tangent, size / 2 / (SHAPE * tangent)
        return result

    def vary_path(self, poses: np.ndarray) -> np.ndarray:
        """Return a walk (V, 4, 4) with another mean height, pitch and roll.

        How they change on the way is kept.
        """
        result = poses.copy()
        if "height" in self.names:
            result[:, 2, 3] += self._rng("height").uniform(*HEIGHT) - poses[:, 2, 3].mean()
        if "pitch" in self.names:
            now = np.arcsin(np.clip(poses[:, 2, 2], -1, 1)).mean()
            angle = np.deg2rad(self._rng("pitch").uniform(*PITCH)) - now
            cos, sin = np.cos(angle), np.sin(angle)
            result[:, :3, :3] = result[:, :3, :3] @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        if "roll" in self.names:
            angle = np.deg2rad(self._rng("roll").uniform(*ROLL))
            cos, sin = np.cos(angle), np.sin(angle)
            result[:, :3, :3] = result[:, :3, :3] @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return result

    def vary_room(self, room: Room) -> Room:
        """Return the room with other surfaces and light.

        The first colour of furniture, which has a name, is kept.
        """
        if not self.names & {"light", "texture"}:
            return room
        shell = room.shell
        if "light" in self.names:
            rng = self._rng("light")
            lamp, day, bounced = rng.uniform(*_GAINS, 3)
            shell = replace(shell, lighting=Lighting(lamp, day, bounced, tuple(rng.uniform(*_TINT, 3).tolist())))
        if "texture" not in self.names:
            return replace(room, shell=shell)
        rng = self._rng("texture")
        objects = [replace(thing, parts=_furniture(rng, thing.parts)) for thing in room.objects]
        return replace(room, shell=_surfaces(rng, shell), objects=objects, extras=_shell_parts(rng, room.extras))

    def vary_frames(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (V, h, w, 3) uint8 as a camera with these faults would give them."""
        if not self.names & {"blur", "exposure", "noise", "jpeg"}:
            return frames
        pictures = frames.astype(np.float32) / 255
        if "blur" in self.names:
            rng = self._rng("blur")
            pictures = np.stack([_streak(picture, rng) for picture in pictures])
        if "exposure" in self.names:
            rng = self._rng("exposure")
            gain = 2 ** rng.uniform(*STOPS) * rng.uniform(*WHITE, 3)
            pictures = np.clip(pictures**2.2 * gain, 0, 1) ** (1 / 2.2)
        if "noise" in self.names:
            rng = self._rng("noise")
            pictures = pictures + rng.normal(0, rng.uniform(*NOISE), pictures.shape)
        result = np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
        if "jpeg" in self.names:
            quality = int(self._rng("jpeg").integers(*QUALITY, endpoint=True))
            result = np.stack([_compress(frame, quality) for frame in result])
        return result

    def vary_depth(self, depth: np.ndarray) -> np.ndarray:
        """Return depth (V, h, w), metres, with holes of 0, mostly beside edges and in patches."""
        if "holes" not in self.names:
            return depth
        rng, result = self._rng("holes"), depth.copy()
        share, size = rng.uniform(*HOLES), depth.shape[-1]
        for frame in result:
            inverse = 1 / frame
            jump = ndimage.maximum_filter(inverse, 3) - ndimage.minimum_filter(inverse, 3)
            patches = ndimage.gaussian_filter(rng.normal(size=frame.shape), size / 16)
            score = patches / patches.std() + 4 * jump / inverse
            frame[score > np.quantile(score, 1 - share)] = 0
        return result


def _streak(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture smeared along a drawn direction."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(*STREAK) * picture.shape[1]
    steps = np.linspace(-0.5, 0.5, 5)[:, None] * length * np.array([np.sin(angle), np.cos(angle)])
    return np.mean([ndimage.shift(picture, (*step, 0), order=1, mode="nearest") for step in steps], axis=0)


def _compress(frame: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _any_material(rng: np.random.Generator, material: Material) -> Material:
    """Return a material of any colours and pattern.

    Light, and patterns that say what a thing is, stay.
    """
    if material.emission or material.texture in _KEPT:
        return material
    colour, second = _random_colour(rng), _random_colour(rng)
    return replace(material, colour=colour, second=second, texture=pick(rng, _SURFACES), scale=rng.uniform(*_SCALES))


def _surfaces(rng: np.random.Generator, shell: Shell) -> Shell:
    faces = [_any_material(rng, face) for face in shell.faces]
    return replace(shell, faces=faces, parts=_shell_parts(rng, shell.parts))


def _shell_parts(rng: np.random.Generator, parts: list[Primitive]) -> list[Primitive]:
    return [replace(part, material=_any_material(rng, part.material)) for part in parts]


def _furniture(rng: np.random.Generator, parts: list[Primitive]) -> list[Primitive]:
    """Return parts of a piece with another pattern; its colour leads."""
    texture, scale, factor = pick(rng, _FURNITURE_SURFACES), rng.uniform(*_SCALES), rng.uniform(0.6, 1.4)
    return [
        part
        if part.material.emission or part.material.texture in _KEPT
        else replace(
            part,
            material=replace(part.material, texture=texture, scale=scale, second=shade(part.material.colour, factor)),
        )
        for part in parts
    ]
