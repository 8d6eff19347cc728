"""The released model's convention: steps and turns, axes, conversion, and its own retrieval."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldwire.camera import make_c2w, rotation_from_yaw_pitch, yaw_pitch_from_rotation
from worldwire_runtime.camera import released


def held(frames, keys=(), mouse=(0.0, 0.0)):
    keyboard = torch.zeros(frames, 6)
    keyboard[:, list(keys)] = 1
    return keyboard, torch.tensor(mouse).expand(frames, 2)


released_poses = st.tuples(*[st.floats(-3000, 3000)] * 3, st.floats(-80, 80), st.floats(-179, 179)).map(
    lambda values: torch.tensor([values], dtype=torch.float64)
)


@pytest.mark.parametrize(
    ("keys", "step_cm"),
    [([0], (12.35, 0)), ([1], (-12.35, 0)), ([2], (0, -12.35)), ([3], (0, 12.35)), ([0, 3], (8.73, 8.73))],
)
def test_steps_of_held_keys(keys, step_cm):
    poses = released.integrate(*held(3, keys))
    np.testing.assert_allclose(poses[2, :2], 2 * np.array(step_cm))
    assert not poses[0].any()


def test_opposite_keys_cancel_out_and_leave_the_full_step_aside():
    assert not released.integrate(*held(2, [0, 1]))[1].any()
    np.testing.assert_allclose(released.integrate(*held(2, [0, 1, 3]))[1, :2], (0, 12.35), atol=1e-12)


def test_small_mouse_motion_is_ignored_and_yaw_wraps_without_a_jump_of_the_step():
    assert not released.integrate(*held(3, (), (0.019, -0.019))).any()
    poses = released.integrate(*held(2, [0], (0.0, 0.1)), start=(0, 0, 0, 0, 179.5))
    assert poses[1, 4].item() == pytest.approx(-179)
    assert poses[1, 0].item() == pytest.approx(12.35 * math.cos(math.radians(180.25)))


@given(released_poses)
def test_extrinsics_are_left_handed_and_become_our_poses(pose):
    c2w = released.extrinsics(pose)
    assert torch.linalg.det(c2w[0]).item() == pytest.approx(-1)
    ours = released.to_world(c2w)
    yaw, pitch = pose[0, 4].item(), pose[0, 3].item()
    x, y, z = (pose[0, :3] / 100).tolist()
    # Forward x is our z, right y our x, up z our -y; a positive released pitch looks down.
    expected = make_c2w(rotation_from_yaw_pitch(yaw, -pitch), (y, -z, x))
    np.testing.assert_allclose(ours[0], expected, atol=1e-9)
    np.testing.assert_allclose(yaw_pitch_from_rotation(ours[0, :3, :3]), (yaw, -pitch), atol=1e-6)
    torch.testing.assert_close(released.from_world(ours), c2w, atol=1e-12, rtol=0)


def test_the_first_released_camera_is_our_identity():
    start = released.extrinsics(torch.zeros(1, 5))
    torch.testing.assert_close(released.to_world(start)[0], torch.eye(4).double())


@given(st.lists(released_poses, min_size=4, max_size=4).map(torch.cat))
def test_the_network_is_told_the_same_from_either_world(poses):
    theirs = released.extrinsics(poses)
    ours = released.to_world(theirs)
    torch.testing.assert_close(released.window_motions(ours), released.window_motions(theirs))
    torch.testing.assert_close(
        released.memory_motions(ours[:2], ours[2:]), released.memory_motions(theirs[:2], theirs[2:])
    )


def test_official_retrieval_collapses_to_one_latent_and_never_scores_above_four_fifths():
    keyboard, mouse = held(137, [0], (0.0, 0.1))
    c2w = released.extrinsics(released.integrate(keyboard, mouse))
    queries = released.query_frames(137, 5)
    assert queries == [136, 128, 120, 112, 104]
    frames, shares = released.select_frames(c2w, queries, before=137 - 56)
    assert frames[:4] == [80, 80, 78, 80]
    assert max(shares) <= 0.8
    assert released.with_sink(frames)[-1] == 4


def test_official_retrieval_prefers_the_oldest_of_equals_and_cannot_recall_the_image():
    still = released.extrinsics(torch.zeros(60, 5))
    frames, shares = released.select_frames(still, [50, 42], before=30)
    assert frames == [1, 1]
    assert shares == pytest.approx([0.8, 0.8])
    assert released.select_frames(still, [50, 42], before=1) == ([0, 0], [0.0, 0.0])
