"""What the network is told: Plücker maps, action windows, null actions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import random_config

from worldwire.camera import Intrinsics, make_c2w, rotation_from_yaw_pitch
from worldwire_runtime.camera import released
from worldwire_runtime.camera.plucker import cell_rays, compose, invert, plucker_map, relative
from worldwire_runtime.conditioning import (
    action_window,
    anchor_plucker,
    last_frame,
    latent_of_frame,
    mouse_vector,
    null_keyboard,
    null_mouse,
    released_plucker,
)
from worldwire_runtime.released.rules import ReleasedRules
from worldwire_runtime.rules import ACTION_SIZE, Clip, OwnRules

CAMERA = Intrinsics.from_fov(192, 320, 80)
GRID = (12, 20)


def pose(yaw_deg, pitch_deg, x, y, z):
    return torch.from_numpy(make_c2w(rotation_from_yaw_pitch(yaw_deg, pitch_deg), (x, y, z)))


angles, metres = st.floats(-170, 170), st.floats(-5, 5)
poses = st.builds(pose, angles, st.floats(-60, 60), metres, metres, metres)
tracks = st.lists(poses, min_size=3, max_size=3).map(torch.stack)


@given(tracks, poses, st.floats(-1e5, 1e5))
def test_plucker_maps_do_not_change_when_the_whole_world_moves(cameras, motion, far):
    motion = motion.clone()
    motion[0, 3] += far
    moved = compose(motion, cameras)
    for maps in (_anchored, _released):
        torch.testing.assert_close(maps(moved), maps(cameras), atol=1e-6, rtol=1e-5)


def _anchored(cameras):
    return anchor_plucker(cameras[None], cameras[None, 0], cell_rays(CAMERA, GRID, 1))


def _released(cameras):
    rays = cell_rays(CAMERA, (2, 3), 2)
    return released_plucker(cameras[None, 1:], cameras[None, :1], cameras[None, 2:], rays)


def test_the_anchor_sees_itself_at_the_origin_and_others_in_metres():
    cameras = torch.stack([pose(30, 0, 1, 0, 2), pose(30, 0, 1, -0.5, 2)])
    maps = anchor_plucker(cameras[None], cameras[None, 0], cell_rays(CAMERA, GRID, 1))
    assert maps.shape == (1, 2, 6, *GRID)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps[0, 0, :3], torch.zeros(3, *GRID))
    torch.testing.assert_close(maps[0, 1, :3, 4, 5], torch.tensor([0.0, -0.5, 0.0]), atol=1e-6, rtol=0)


def test_rays_go_through_pixel_centres_row_by_row_in_a_cell():
    rays = cell_rays(CAMERA, GRID, 16)
    assert rays.shape == (256, *GRID, 3)
    py, px, row, column = 3, 7, 2, 11
    u, v = column * 16 + px + 0.5, row * 16 + py + 0.5
    ray = torch.tensor([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, 1.0])
    torch.testing.assert_close(rays[py * 16 + px, row, column], ray / ray.norm())


def test_channel_order_is_ray_channel_then_row_then_column_of_the_cell():
    rays = cell_rays(CAMERA, GRID, 2)
    camera = pose(20, 10, 1, 2, 3).float()
    features = plucker_map(camera, rays).view(6, 4, *GRID)
    torch.testing.assert_close(features[:3, 3, 0, 0], camera[:3, 3])
    torch.testing.assert_close(features[3:, 2, 5, 6], camera[:3, :3] @ rays[2, 5, 6])


def test_autocast_does_not_round_cameras():
    cameras = torch.stack([pose(10, 5, 100, 0, 3), pose(14, 5, 101, 0, 3)]).float()
    expected = _anchored(cameras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(_anchored(cameras), expected, atol=0, rtol=0)


@given(poses, poses)
def test_relative_poses_compose_back(first, second):
    torch.testing.assert_close(compose(first, relative(second, first)), second, atol=1e-9, rtol=0)
    torch.testing.assert_close(compose(invert(first), first), torch.eye(4).double(), atol=1e-9, rtol=0)


@settings(max_examples=20)
@given(tracks)
def test_released_windows_forget_speed_and_memory_forgets_distance(cameras):
    slow, fast = cameras.clone(), cameras.clone()
    fast[:, :3, 3] *= 3
    torch.testing.assert_close(_released(slow), _released(fast), atol=1e-6, rtol=1e-5)


def test_a_window_without_motion_has_no_translation():
    still = pose(10, 0, 5, 0, 5).expand(4, 4, 4)
    motions = released.window_motions(still)
    torch.testing.assert_close(motions, torch.eye(4).double().expand(4, 4, 4), atol=1e-12, rtol=0)


# ---------------------------------------------------------------------- actions and numbering


def test_look_becomes_pitch_then_yaw_in_units_of_15_degrees():
    look = torch.tensor([[30.0, -7.5]])
    torch.testing.assert_close(mouse_vector(look), torch.tensor([[-0.5, 2.0]]))


def test_null_actions_are_the_released_constants():
    like = torch.zeros(2, 3, 6)
    assert null_keyboard(like).unique().tolist() == [-1]
    assert null_mouse(like).unique().tolist() == [1]
    assert null_mouse(like).shape == like.shape


@given(st.integers(0, 40), st.integers(1, 6))
def test_a_latent_sees_the_actions_of_its_own_frames_and_of_two_latents_before(newest, latents):
    frames = last_frame(newest) + 1
    actions = torch.arange(1, frames + 1.0).view(1, frames, 1)  # action f is f + 1, so that 0 is "before"
    window = action_window(actions, latents)[0, :, 0]
    assert len(window) == 4 * (latents + 2)
    for place in range(latents):
        latent = newest - latents + 1 + place
        seen = window[4 * place : 4 * place + 12].tolist()
        assert seen == [max(0, frame + 1) for frame in range(4 * latent - 11, 4 * latent + 1)]


def test_frame_numbering():
    assert [latent_of_frame(frame) for frame in range(10)] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert all(latent_of_frame(last_frame(latent)) == latent for latent in range(20))


@pytest.mark.parametrize(("rays", "channels"), [(1, 6), (4, 96), (16, 1536)])
def test_any_number_of_rays(rays, channels):
    cameras = torch.from_numpy(np.eye(4)).expand(2, 3, 4, 4)
    maps = anchor_plucker(cameras, cameras[:, 0], cell_rays(CAMERA, GRID, rays))
    assert maps.shape == (2, 3, channels, *GRID)
    torch.testing.assert_close(maps.view(2, 3, 6, -1, *GRID)[:, :, 3:].norm(dim=2).mean(), torch.tensor(1.0))


@pytest.mark.parametrize("kind", ["own", "released"])
def test_a_clip_on_the_host_is_told_on_the_device_of_its_rules(kind):
    """A device that refuses to mix with the host stands for a GPU."""
    config, device = random_config("joint"), torch.device("meta")
    make = {
        "own": lambda: OwnRules(config, device, torch.float32),
        "released": lambda: ReleasedRules(config, device, torch.float32, lambda _: torch.empty(0)),
    }[kind]
    cameras = torch.stack([pose(10 * turn, 0, turn, 0, 2) for turn in range(7)])
    clip = Clip(
        text=torch.empty(1, 1, 1, device=device),
        view="first_person",
        memory_c2w=cameras[:2],
        window_c2w=cameras[2:],
        query_c2w=cameras[5:],
        slots=(0, 1),
        first=2,
        past=3,
        actions=torch.zeros(1, 40, ACTION_SIZE),
    )
    told = vars(make().conditions(clip))
    assert {part.device for part in told.values() if isinstance(part, torch.Tensor)} == {device}
    assert told["plucker"].shape[1] == 7
