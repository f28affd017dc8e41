"""From the samples that a video stores to the upright standard-range pictures that a player shows."""

from functools import cache

import numpy as np

__all__ = ["HLG", "PQ", "needs_conversion", "to_standard_range", "to_upright"]

# Numbers of ITU-T H.273, which FFmpeg uses too.
PQ, HLG = 16, 18  # transfer characteristics of BT.2100
BT2020_PRIMARIES, P3_PRIMARIES = 9, 12

WHITE_NITS = 203.0  # luminance of reference white in PQ, BT.2408
HLG_WHITE = 0.2650  # scene light of reference white in HLG: 75 % of the signal, BT.2408
PQ_PEAK_NITS = 10_000.0
KNEE = 0.9  # linear light of the brightest channel, reference white = 1: above it highlights are rolled off
CODES = 65280  # 255 x 256: what swscale's 16 bit RGB holds for full signal

TO_BT709 = {  # linear light, BT.2087 and SMPTE EG 432-1
    BT2020_PRIMARIES: ((1.6605, -0.5876, -0.0729), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    P3_PRIMARIES: ((1.2249, -0.2249, 0.0), (-0.0421, 1.0421, 0.0), (-0.0196, -0.0786, 1.0983)),
}  # fmt: skip


def needs_conversion(transfer: int, primaries: int) -> bool:
    """Return whether a video is HDR or has wide primaries, by its H.273 numbers."""
    return transfer in (PQ, HLG) or primaries in TO_BT709


def to_standard_range(signal: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Return the standard-range version of pictures in HDR or with wide primaries.

    HLG and PQ become linear light with reference white at 1 (BT.2100, BT.2408). The primaries become those of BT.709.
    Highlights above 90 % of reference white are rolled off at constant hue. The result takes the sRGB curve. Colours
    up to that knee come within 3 of 255 of the same colours as standard video; reference white becomes 251. Light is
    that of the scene: the system gamma of an HLG display is not applied.

    Args:
        signal (`np.ndarray` of shape `(height, width, 3)`, uint16):
            R'G'B' with full range, 65280 for full signal.
        transfer (`int`):
            Transfer characteristics of H.273: 16 is PQ, 18 is HLG, all others count as standard range.
        primaries (`int`):
            Colour primaries of H.273: 9 is BT.2020, 12 is P3.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, uint8 RGB.
    """
    light = _linear_light(transfer)[signal]
    if primaries in TO_BT709:
        light = light @ np.asarray(TO_BT709[primaries], dtype=np.float32).T
    if transfer in (PQ, HLG):
        light = _roll_off(light)
    codes = np.clip(light, 0, 1) * (len(_srgb_codes()) - 1)
    return _srgb_codes()[np.rint(codes).astype(np.uint16)]


def _roll_off(light: np.ndarray) -> np.ndarray:
    peak = np.maximum(light.max(axis=-1, keepdims=True), KNEE)
    rolled = KNEE + (1 - KNEE) * (1 - np.exp((KNEE - peak) / (1 - KNEE)))
    return light * (rolled / peak)


@cache
def _linear_light(transfer: int) -> np.ndarray:
    signal = np.minimum(np.arange(65536) / CODES, 1.0)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073  # BT.2100, table 5
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12) / HLG_WHITE
    elif transfer == PQ:
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875  # BT.2100, table 4
        root = signal ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * PQ_PEAK_NITS / WHITE_NITS
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@cache
def _srgb_codes() -> np.ndarray:
    light = np.arange(65536) / 65535
    return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(
        np.uint8
    )


def to_upright(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turn and mirror a stored picture as a display matrix says.

    Args:
        picture (`np.ndarray` of shape `(height, width, channels)`):
            Picture as it is stored.
        matrix (`np.ndarray` of shape `(9,)`, *optional*):
            Display matrix of ISO/IEC 14496-12, `a b u c d v x y w`: a point (p, q) is shown at
            `(a p + c q + x, b p + d q + y)`. Only quarter turns and mirroring count, as scale and offset say nothing
            about the pixels.

    Returns:
        `np.ndarray`: The upright picture; a view of the stored one.
    """
    if matrix is None:
        return picture
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):  # a quarter turn: columns become rows
        picture, right, down = picture.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
