"""Triangle meshes of the studio's parts, in numpy: bodies of revolution, bevelled boxes, rods.

A mesh is (vertices (n, 3) float64 metres, normals (n, 3) unit float64, uv (n, 2), faces (m, 3) uint32), z up.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SEGMENTS = 40
"""Steps around the axis of a body of revolution: no polygon can be seen at the studio's sizes."""
CREASE_COS = math.cos(math.radians(40))
"""Two stretches of a profile that meet at a wider angle keep a sharp edge."""


class Mesh(NamedTuple):
    vertices: Array
    normals: Array
    uv: Array
    faces: npt.NDArray[np.uint32]


def make_lathe(profile: Sequence[Sequence[float]], segments: int = SEGMENTS) -> Mesh:
    """Body of revolution around z of a (radius, height) profile, walked with the outside on its right.

    Normals are averaged over the joints of the profile except at creases (`CREASE_COS`).
    """
    points = np.asarray(profile, np.float64)
    steps = np.diff(points, axis=0)
    flat = np.stack([steps[:, 1], -steps[:, 0]], 1)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    first, last = flat.copy(), flat.copy()
    closed = bool(np.allclose(points[0], points[-1]))
    for i in range(len(flat)):
        j = i + 1
        if j == len(flat):
            if not closed:
                break
            j = 0
        if float(flat[i] @ flat[j]) > CREASE_COS:
            joint = (flat[i] + flat[j]) / np.linalg.norm(flat[i] + flat[j])
            last[i] = joint
            first[j] = joint
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(steps, axis=1))])
    along /= along[-1]
    # Two rings for each stretch of the profile; the seam is doubled so that uv can run from 0 to 1.
    ring = np.stack([points[:-1], points[1:]], 1).reshape(-1, 2)
    ring_normal = np.stack([first, last], 1).reshape(-1, 2)
    ring_v = np.stack([along[:-1], along[1:]], 1).reshape(-1)
    turn = np.linspace(0.0, 2 * np.pi, segments + 1)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)

    def around(pair: Array) -> Array:
        flat_part = pair[:, None, 0, None] * circle[None]
        return np.concatenate([flat_part, np.broadcast_to(pair[:, None, 1, None], (*flat_part.shape[:2], 1))], 2)

    u, v = np.meshgrid(turn / (2 * np.pi), ring_v)
    wide = segments + 1
    lower = (np.arange(len(flat))[:, None] * 2 * wide + np.arange(segments)[None]).reshape(-1)
    upper = lower + wide
    faces = np.concatenate([np.stack([lower, lower + 1, upper + 1], 1), np.stack([lower, upper + 1, upper], 1)])
    vertices = around(ring).reshape(-1, 3)
    corner = vertices[faces]
    size = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    return Mesh(
        vertices,
        around(ring_normal).reshape(-1, 3),
        np.stack([u.reshape(-1), v.reshape(-1)], 1),
        faces[size > 1e-12].astype(np.uint32),
    )


def make_box(size: Sequence[float], bevel: float) -> Mesh:
    """Box of `size` (x, y, z), standing on z = 0, its edges rounded with radius `bevel`.

    Each point of the sharp box goes to the nearest point of the box shrunk by `bevel`, plus `bevel` outwards.
    """
    half = np.asarray(size, np.float64) / 2
    radius = min(bevel, 0.49 * float(half.min()))
    grids = [np.concatenate([np.linspace(-h, -h + radius, 4), np.linspace(h - radius, h, 4)]) for h in half]
    points, uvs, faces, start = [], [], [], 0
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            u, v = np.meshgrid(grids[a], grids[b], indexing="ij")
            face = np.empty((*u.shape, 3))
            face[..., a], face[..., b], face[..., axis] = u, v, sign * half[axis]
            corner = (np.arange(7)[:, None] * 8 + np.arange(7)[None]).reshape(-1) + start
            quad = np.stack([corner, corner + 8, corner + 9, corner + 1], 1)[:, :: int(sign)]
            points.append(face.reshape(-1, 3))
            uvs.append(np.stack([u / (2 * half[a]) + 0.5, v / (2 * half[b]) + 0.5], -1).reshape(-1, 2))
            faces.append(np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]))
            start += 64
    sharp = np.concatenate(points)
    inner = np.clip(sharp, -(half - radius), half - radius)
    normals = sharp - inner
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    vertices = inner + radius * normals + np.array([0.0, 0.0, half[2]])
    return Mesh(vertices, normals, np.concatenate(uvs), np.concatenate(faces).astype(np.uint32))


def make_rotation(degrees: Sequence[float]) -> Array:
    """Rotation matrix: about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(degrees):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        matrix = turn @ matrix
    return matrix


def make_rod(start: Sequence[float], end: Sequence[float], radius: float, end_radius: float | None = None) -> Mesh:
    """Round bar between two points, capped."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(b - a))
    tip = radius if end_radius is None else end_radius
    mesh = make_lathe([(0, 0), (radius, 0), (tip, length), (0, length)], segments=20)
    z = (b - a) / length
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    frame = np.stack([x, np.cross(z, x), z], 1)
    return Mesh(mesh.vertices @ frame.T + a, mesh.normals @ frame.T, mesh.uv, mesh.faces)


def make_part_mesh(part: Mapping[str, Any]) -> Mesh:
    """Mesh of one part of an object, in the object's own frame (metres, z up, standing on z = 0).

    Raises:
        ValueError: the part's form is unknown.
    """
    match part["form"]:
        case "lathe":
            mesh = make_lathe(part["profile"])
        case "box":
            mesh = make_box(part["size"], part["bevel"])
        case "rod":
            mesh = make_rod(part["start"], part["end"], part["radius"], part.get("end_radius"))
        case form:
            raise ValueError(f"unknown form of a part: {form!r}")
    scale = np.asarray(part.get("scale", (1, 1, 1)), np.float64)
    turn = make_rotation(part.get("turn", (0, 0, 0)))
    normals = mesh.normals / scale
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    vertices = (mesh.vertices * scale) @ turn.T + np.asarray(part.get("at", (0, 0, 0)), np.float64)
    return Mesh(vertices, normals @ turn.T, mesh.uv, mesh.faces)


def make_object_meshes(item: Mapping[str, Any]) -> dict[int, Mesh]:
    """World-space meshes of an object of a scene description, one for each of its materials."""
    turn = make_rotation((0, 0, item["yaw"]))
    place = np.array([*item["position"], 0.0])
    groups: dict[int, list[Mesh]] = {}
    for part in item["parts"]:
        groups.setdefault(part["material"], []).append(make_part_mesh(part))
    merged = {}
    for material, meshes in groups.items():
        offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
        merged[material] = Mesh(
            np.concatenate([mesh.vertices for mesh in meshes]) * item["scale"] @ turn.T + place,
            np.concatenate([mesh.normals for mesh in meshes]) @ turn.T,
            np.concatenate([mesh.uv for mesh in meshes]),
            np.concatenate(
                [mesh.faces + np.uint32(offset) for mesh, offset in zip(meshes, offsets, strict=True)]
            ).astype(np.uint32),
        )
    return merged
