"""From poses and inputs to what the transformer is conditioned on, for sessions and for training alike.

Everything is batched and never waits for a device.

Numbering: frame 0 is latent 0 alone, latent k >= 1 holds frames 4k-3 .. 4k, and the pose of a latent is the
pose of its last frame. Action f leads to frame f.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldwire_runtime.camera import released
from worldwire_runtime.camera.plucker import plucker_map, relative
from worldwire_runtime.model.action import NULL_KEYBOARD, NULL_MOUSE
from worldwire_runtime.model.vae import FRAMES_PER_LATENT

ACTION_WINDOW_LATENTS = 3  # a latent sees the actions of its own frames and of the two latents before
MOUSE_UNIT_DEG = 15.0  # degrees of turn that one unit of the released mouse vector stands for


def latent_of_frame(frame: int) -> int:
    """The latent that holds a frame."""
    return (frame - 1) // FRAMES_PER_LATENT + 1


def last_frame(latent: int) -> int:
    """The last frame of a latent; its pose is the latent's pose."""
    return FRAMES_PER_LATENT * latent


def mouse_vector(look_deg: Tensor) -> Tensor:
    """Look [..., 2] in degrees (yaw, pitch) as the network's mouse vector [..., 2] (pitch, yaw)."""
    return look_deg.flip(-1) / MOUSE_UNIT_DEG


def null_keyboard(like: Tensor) -> Tensor:
    """The keyboard vectors that say "unknown", shaped like `like`."""
    return torch.full_like(like, NULL_KEYBOARD)


def null_mouse(like: Tensor) -> Tensor:
    """The mouse vectors that say "unknown", shaped like `like`."""
    return torch.full_like(like, NULL_MOUSE)


def action_window(actions: Tensor, latents: int) -> Tensor:
    """The per-frame actions [B, 4 * (latents + 2), A] that the last `latents` latents of a history see.

    actions: [B, F, A], one vector for each of the F frames up to the window's last frame. Window latent i
    takes the entries 4i .. 4i+11 of the result; before the first frame of a session nothing was pressed, so
    zeros stand there.
    """
    wanted = FRAMES_PER_LATENT * (latents + ACTION_WINDOW_LATENTS - 1)
    recent = actions[:, -wanted:]
    return torch.nn.functional.pad(recent, (0, 0, wanted - recent.shape[1], 0))


def anchor_plucker(c2w: Tensor, anchor_c2w: Tensor, rays: Tensor) -> Tensor:
    """Plücker features [B, L, 6 * R, h, w] of all cameras in the anchor's frame, in the type of `rays`.

    c2w: [B, L, 4, 4] of memory and window latents, metres; float64 keeps far positions exact.
    anchor_c2w: [B, 4, 4], the last clean latent of the window (the newest past latent, or the image).
    rays: [R, h, w, 3] of `cell_rays`; the features are made on their device, cameras may be elsewhere.
    Metres stay metres: unlike the released rule, speeds and distances are not normalised away.
    """
    return _features(relative(c2w, anchor_c2w[:, None]), rays)


def released_plucker(
    window_c2w: Tensor,
    memory_c2w: Tensor,
    query_c2w: Tensor,
    rays: Tensor,
) -> Tensor:
    """Plücker features [B, M + W, 6 * R, h, w] by the released rule, memory first.

    window_c2w: [B, W, 4, 4] of the window's latents. memory_c2w: [B, M, 4, 4] of the memory latents, and
    query_c2w: [B, M, 4, 4] of the frames that asked for them. All in the released world or all in ours: only
    relative poses matter. Speeds and distances are normalised away (`camera.released`). rays: as above.
    """
    cameras = torch.cat(
        [released.memory_motions(memory_c2w, query_c2w), released.window_motions(window_c2w)], dim=1
    )
    return _features(cameras, rays)


def _features(cameras: Tensor, rays: Tensor) -> Tensor:
    """Few numbers go to the device, many are made there; the host does not wait for it."""
    return plucker_map(cameras.to(rays.device, non_blocking=True), rays)
