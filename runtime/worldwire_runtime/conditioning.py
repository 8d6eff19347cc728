"""From poses and inputs to what the transformer is conditioned on, for sessions and for training alike.

Everything is batched, runs on the device of its arguments, and never waits for it.

Numbering: frame 0 is latent 0 alone, latent k >= 1 holds frames 4k-3 .. 4k, and the pose of a latent is the
pose of its last frame. Action f leads to frame f.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldwire.camera import Intrinsics
from worldwire.errors import ConfigError
from worldwire_runtime.camera.plucker import cell_rays, plucker_map, relative

FRAMES_PER_LATENT = 4
ACTION_WINDOW_LATENTS = 3  # a latent sees the actions of its own frames and of the two latents before
MOUSE_UNIT_DEG = 15.0  # degrees of turn that one unit of the released mouse vector stands for
NULL_KEYBOARD = -1.0  # "no action known": memory latents, dropped keys, the null branch of guidance
NULL_MOUSE = 1.0


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


def released_action_window(actions: Tensor) -> Tensor:
    """The same entries [B, 4 * (W + 2), A] by the released rule, which repeats the first action.

    actions: [B, F, A]. A first clip has F = 4W - 3 frames and takes 12 copies, so that its latents see one
    frame less of the present than those of a later clip (F = 4W, 8 copies) do. Raises ConfigError for
    another F.
    """
    frames = actions.shape[1]
    leftover = frames % FRAMES_PER_LATENT
    if leftover not in (0, 1) or frames == 0:
        raise ConfigError("the actions fill no clip", expected="4n + 1 or 4n frames", got=f"{frames} frames")
    copies = FRAMES_PER_LATENT * (ACTION_WINDOW_LATENTS - 1 + leftover)
    window = torch.cat([actions[:, :1].expand(-1, copies, -1), actions], dim=1)
    return window[:, : frames + copies - leftover]


def anchor_plucker(
    c2w: Tensor,
    anchor_c2w: Tensor,
    intrinsics: Intrinsics,
    latent_hw: tuple[int, int],
    rays_per_cell: int,
) -> Tensor:
    """Plücker features [B, L, 6 * rays_per_cell**2, h, w], float32, of all cameras in the anchor's frame.

    c2w: [B, L, 4, 4] of memory and window latents, metres; float64 keeps far positions exact.
    anchor_c2w: [B, 4, 4], the last clean latent of the window (the newest past latent, or the image).
    Metres stay metres: unlike the released rule, speeds and distances are not normalised away.
    """
    rays = cell_rays(intrinsics, latent_hw, rays_per_cell, c2w.device)
    return plucker_map(relative(c2w, anchor_c2w[:, None]), rays)
