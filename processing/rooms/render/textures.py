"""Procedural textures: surface metres to linear colours, faded where a pixel is wider than the pattern."""

import numpy as np

__all__ = ["TEXTURES", "texture_colour"]

_SIZE = 256


def _noise_table() -> np.ndarray:
    """Return tileable value noise (256, 256) in [0, 1], four octaves."""
    rng, total = np.random.default_rng(20240), np.zeros((_SIZE, _SIZE))
    for octave, cells in enumerate((8, 16, 32, 64)):
        grid = rng.random((cells, cells))
        at = np.arange(_SIZE) * cells / _SIZE
        low, part = at.astype(int), at - at.astype(int)
        part = part * part * (3 - 2 * part)
        high = (low + 1) % cells
        rows = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
        total += (rows[:, low] * (1 - part) + rows[:, high] * part) / 2**octave
    total -= total.min()
    return (total / total.max()).astype(np.float32)


_NOISE = _noise_table()


def _noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return noise whose coarsest blobs are one unit wide."""
    i = (u * 32).astype(np.int32) & (_SIZE - 1)
    j = (v * 32).astype(np.int32) & (_SIZE - 1)
    return _NOISE.take(i * _SIZE + j, mode="clip")


def _hash(i: np.ndarray, j=0.0) -> np.ndarray:
    """Return a repeatable value in [0, 1) per cell."""
    x = np.sin(i * 12.9898 + j * 78.233) * 43758.547
    return x - np.floor(x)


def _fade(period: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """1 where a pixel (metres wide) resolves the pattern, 0 where it does not."""
    return np.clip(1.6 - 2.4 * footprint / period, 0.0, 1.0)


def _gap(x: np.ndarray, width: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return the share of a pixel within `width` of whole numbers of x."""
    away = np.abs(x - np.round(x))
    return np.clip((width + footprint - away) / (2 * footprint), 0.0, 1.0) * np.minimum(1.0, width / footprint + 0.15)


def _mix(first, second, weight):
    return first + (second - first) * weight


def _plain(u, v, s, seed, foot, first, second):
    return first


def _plaster(u, v, s, seed, foot, first, second):
    return _mix(first, second, _noise(u / 0.6 + seed, v / 0.6))


def _wood(u, v, s, seed, foot, first, second):
    grain = _noise(u / s * 0.5 + seed, v / (s * 9))
    rings = 0.5 + 0.5 * np.sin(26 * (grain + u))
    return _mix(first, second, 0.5 + ((0.55 * grain + 0.45 * rings) - 0.5) * _fade(s, foot))


def _stripes(u, v, s, seed, foot, first, second):
    wave = np.sin(2 * np.pi * u / s)
    return _mix(first, second, 0.5 + 0.5 * np.clip(wave * 4, -1, 1) * _fade(s, foot))


def _fabric(u, v, s, seed, foot, first, second):
    # Threads along u and v, each drawn out in its own direction.
    threads = _noise(u / (s * 0.5) + seed, v / (s * 5)) + _noise(u / (s * 5), v / (s * 0.5) + seed) - 1
    return _mix(first, second, 0.5 + 0.7 * threads * _fade(s, foot) + 0.4 * (_noise(u / 0.3 + seed, v / 0.3) - 0.5))


def _weave(u, v, s, seed, foot, first, second):
    a, b = np.floor(u / s * 2), np.floor(v / s * 3)
    return _mix(first, second, 0.5 + (np.mod(a + b, 2) - 0.5) * _fade(s / 2, foot))


def _brick(u, v, s, seed, foot, first, second):
    row = v / (s * 0.33)
    column = u / s + 0.5 * np.mod(np.floor(row), 2)
    tone = 1 + 0.3 * (_hash(np.floor(column), np.floor(row)) - 0.5) * _fade(s, foot)
    gap = np.maximum(_gap(column, 0.03, foot / s), _gap(row, 0.09, foot / (s * 0.33)))
    return _mix(first * tone, second, gap)


def _planks(u, v, s, seed, foot, first, second):
    row = u / s + seed
    index = np.floor(row)
    along = v / (s * 8) + _hash(index)
    tone = _hash(index, np.floor(along)) - 0.5
    grain = _noise(u / s * 0.6 + tone * 9, v / (s * 8)) - 0.5
    colour = _mix(first, second, np.clip(0.4 + 0.7 * tone + 0.8 * grain * _fade(s * 0.4, foot), 0, 1))
    gap = np.maximum(_gap(row, 0.018, foot / s), _gap(along, 0.002, foot / (s * 8)))
    return colour * (1 - 0.55 * gap)


def _tiles(u, v, s, seed, foot, first, second):
    a, b = u / s, v / s
    tone = 1 + 0.12 * (_hash(np.floor(a), np.floor(b) + seed) - 0.5) + 0.12 * (_noise(u + seed, v) - 0.5)
    gap = np.maximum(_gap(a, 0.012, foot / s), _gap(b, 0.012, foot / s))
    return _mix(first * tone, second * 0.8, gap)


_SPINES = np.array(
    [
        [0.36, 0.09, 0.07],
        [0.09, 0.14, 0.25],
        [0.55, 0.45, 0.28],
        [0.12, 0.2, 0.12],
        [0.62, 0.58, 0.5],
        [0.2, 0.1, 0.06],
    ],
    np.float32,
)


def _books(u, v, s, seed, foot, first, second):
    at = u / s + seed
    spine = _SPINES.T[:, (_hash(np.floor(at)) * len(_SPINES)).astype(np.int8)]
    fade = _fade(s, foot)
    colour = spine * fade + _SPINES.mean(axis=0)[:, None] * (1 - fade)
    return colour * (1 - 0.7 * _gap(at, 0.05, foot / s))


def _leaves(u, v, s, seed, foot, first, second):
    speck = _noise(u / s * 0.6 + seed, v / s * 0.6)
    return _mix(first, second, np.clip((speck - 0.5) * 3 + 0.35, 0, 1)) * (0.55 + 0.6 * speck)


def _art(u, v, s, seed, foot, first, second):
    blobs = _noise(u / s * 0.4 + seed, v / s * 0.4 + seed * 0.7)
    colour = _mix(first, second, np.clip((blobs - 0.52) * 9, 0, 1))
    return _mix(colour, np.float32(0.75) + 0.2 * first, np.clip((0.3 - blobs) * 9, 0, 1))


def _sky(u, v, s, seed, foot, first, second):
    cloud = np.clip(_noise(u * 0.7 + seed, v * 1.4) * 1.6 - 0.5, 0, 1)
    colour = _mix(first, second, np.clip(0.55 - v / s * 0.8 + 0.4 * cloud, 0, 1))
    hill = (v / s < -0.28 + 0.12 * _noise(u * 0.5 + seed, u * 0)).astype(np.float32)
    return _mix(colour, np.array([[0.16], [0.27], [0.12]], np.float32), hill)


def _rug(u, v, s, seed, foot, first, second):
    diamond = np.abs(np.mod(u / s, 1) - 0.5) + np.abs(np.mod(v / s, 1) - 0.5)
    return _mix(
        first, second, np.clip((np.abs(diamond - 0.5) - 0.17) * 12, -0.5, 0.5) * _fade(s * 0.6, foot) * 0.8 + 0.4
    )


TEXTURES = {
    f.__name__[1:]: f
    for f in (
        _plain,
        _plaster,
        _wood,
        _stripes,
        _fabric,
        _weave,
        _brick,
        _planks,
        _tiles,
        _books,
        _leaves,
        _art,
        _sky,
        _rug,
    )
}


def texture_colour(name: str, u, v, scale, seed, footprint, first, second) -> np.ndarray:
    """Return the linear colour (3, n) of a texture at surface coordinates u, v (n,), metres.

    `footprint` (n,) is the width of a pixel on the surface, metres; `first`, `second` (3, n) are linear colours.
    """
    return TEXTURES[name](u, v, scale, seed, footprint, first, second)
