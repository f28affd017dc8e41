"""Analytic scenes: a wall and a ball in front of it, with exact depth and exact visibility."""

import math

import torch

WALL = 3.0  # The wall is the plane z = WALL of the world.
BALL, RADIUS = (0.1, -0.05, 2.0), 0.4


def camera_to_world(yaw=0.0, pitch=0.0, position=(0.0, 0.0, 0.0)):
    """A camera at `position`, turned by `yaw` about y and then by `pitch` about x (radians)."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    turn = torch.tensor([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    nod = torch.tensor([[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]])
    pose = torch.eye(4)
    pose[:3, :3] = turn @ nod
    pose[:3, 3] = torch.tensor(position)
    return pose


def intrinsics(focal=60.0, height=48, width=64):
    return torch.tensor([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def rays(camera, pose, height=48, width=64):
    """Ray directions (H, W, 3) in the world; their camera z is 1, so that the ray parameter is the z-depth."""
    v, u = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x, y = (u - camera[0, 2]) / camera[0, 0], (v - camera[1, 2]) / camera[1, 1]
    return torch.stack((x, y, torch.ones_like(x)), -1) @ pose[:3, :3].T


def ball_distance(origin, direction):
    """Ray parameter at which rays enter the ball; Inf where they miss it."""
    offset = origin - torch.tensor(BALL)
    a, b = (direction * direction).sum(-1), (direction * offset).sum(-1)
    root = b * b - a * ((offset * offset).sum(-1) - RADIUS**2)
    t = (-b - root.clamp(min=0).sqrt()) / a
    return torch.where((root > 0) & (t > 1e-4), t, torch.inf)


def render(camera, pose, *, with_ball=True, height=48, width=64):
    """Exact z-depth (H, W); 0 where a ray meets nothing."""
    direction, origin = rays(camera, pose, height, width), pose[:3, 3]
    wall = (WALL - origin[2]) / direction[..., 2]
    depth = torch.where(wall > 0, wall, torch.inf)
    if with_ball:
        depth = torch.minimum(depth, ball_distance(origin, direction))
    return torch.where(torch.isfinite(depth), depth, 0.0)


def is_visible(points, camera, pose, *, height=48, width=64):
    """Whether the source camera sees scene points (..., 3), by casting a ray at each of them."""
    seen = (points - pose[:3, 3]) @ pose[:3, :3]
    z = seen[..., 2]
    u = camera[0, 0] * seen[..., 0] / z + camera[0, 2]
    v = camera[1, 1] * seen[..., 1] / z + camera[1, 2]
    inside = (z > 0) & (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    direction = points - pose[:3, 3]
    return inside & (ball_distance(pose[:3, 3].expand(points.shape), direction) > 1 - 1e-3)
