"""Parity of the released camera convention: poses, Plücker maps, retrieval, exact overlap."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from worldwire.camera import Intrinsics
from worldwire_runtime.camera import released
from worldwire_runtime.camera.frustum import exact_overlap
from worldwire_runtime.camera.plucker import cell_rays
from worldwire_runtime.conditioning import latent_of_frame, released_plucker
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_runtime.parity.common import relative_error, share_different

INTRINSICS_NAME = re.compile(r"intrinsics_(\d+)x(\d+)")

# Outputs that name frames: the same ones or not.
CHOICES = ("memory_query_frames", "memory_selected", "memory_slots")

# The official exact overlap compares frusta of square pixels, without a near plane.
EXACT_INTRINSICS = Intrinsics(fx=640, fy=640, cx=640, cy=360, height=720, width=1280)
EXACT_NEAR_M, EXACT_FAR_M = 0.0, 30.0


def recognises(spec: dict[str, Any], tensors: dict[str, Tensor]) -> bool:
    return "pluecker_hw" in spec and "extrinsics" in tensors


def run(spec: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, float]:
    """Everything that follows from the keys and the mouse of the case, output by output."""
    poses = released.integrate(tensors["keyboard"], tensors["mouse"])
    c2w = released.extrinsics(poses)
    ours = {"poses": poses, "extrinsics": c2w, **_intrinsics(tensors), **_plucker(spec, tensors, c2w)}
    ours |= _retrieval(tensors, c2w)
    errors = {
        name: (share_different if name in CHOICES else relative_error)(value, tensors[name])
        for name, value in ours.items()
    }
    if "overlap_exact_approx" in tensors:
        exact = tensors["overlap_exact_approx"][:, 0]
        errors["overlap_exact"] = relative_error(_exact_overlaps(tensors, c2w), exact)
    return errors


def _intrinsics(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs named after a resolution: fx, fy, cx, cy of the released camera."""
    found = {}
    for match in filter(None, map(INTRINSICS_NAME.fullmatch, tensors)):
        camera = released.intrinsics(int(match[1]), int(match[2]))
        found[match[0]] = torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy], dtype=torch.float64)
    return found


def _plucker(spec: dict[str, Any], tensors: dict[str, Tensor], c2w: Tensor) -> dict[str, Tensor]:
    """The maps [1, C, L, h, w] of the first clip, of the clip that asks the memory, and of the memory."""
    queries, selected = tensors["memory_query_frames"], tensors["memory_selected"]
    first_length, later_length = (tensors[f"plucker_{clip}_clip"].shape[2] for clip in ("first", "later"))
    end = latent_of_frame(int(queries[0])) + 1
    latent_c2w = c2w[::FRAMES_PER_LATENT]
    memory_c2w = latent_c2w[[latent_of_frame(int(frame)) for frame in selected]]
    height, width = spec["pluecker_hw"]
    rows, columns = spec["latent_hw"]

    rays = cell_rays(released.intrinsics(height, width), (rows, columns), height // rows, c2w.device)

    def maps(window: Tensor, memory: Tensor, query: Tensor) -> Tensor:
        features = released_plucker(window[None], memory[None], query[None], rays)
        return features.transpose(1, 2)

    first = maps(latent_c2w[:first_length], c2w[:0], c2w[:0])
    later = maps(latent_c2w[end - later_length : end], memory_c2w, c2w[queries])
    memory, window = later[:, :, : len(queries)], later[:, :, len(queries) :]
    return {"plucker_first_clip": first, "plucker_later_clip": window, "plucker_memory": memory}


def _retrieval(tensors: dict[str, Tensor], c2w: Tensor) -> dict[str, Tensor]:
    """The chosen frames before and after the sink, and the share that each query sees."""
    queries = tensors["memory_query_frames"].tolist()
    window = FRAMES_PER_LATENT * tensors["plucker_later_clip"].shape[2]
    frames, shares = released.select_frames(c2w, queries, before=queries[0] + 1 - window)
    return {
        "memory_query_frames": torch.tensor(released.query_frames(queries[0] + 1, len(queries))),
        "memory_selected": torch.tensor(frames),
        "memory_slots": torch.tensor(released.with_sink(frames)),
        "memory_confidence": torch.tensor(shares),
    }


def _exact_overlaps(tensors: dict[str, Tensor], c2w: Tensor) -> Tensor:
    cameras = c2w.numpy()
    ratios = [
        exact_overlap(cameras[query], cameras[candidate], EXACT_INTRINSICS, EXACT_NEAR_M, EXACT_FAR_M)
        for query, candidate in tensors["overlap_pairs"].tolist()
    ]
    return torch.tensor(ratios)
