"""Frustum overlap: the sampled estimate against the exact ratio, and that against a second exact method."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection

from worldwire.camera import Intrinsics, invert, make_c2w, rotation_from_yaw_pitch
from worldwire_runtime.camera.frustum import exact_overlap, overlap, paired_overlap, sample_frustum

CAMERA = Intrinsics.from_fov(192, 320, 80)
OFF_CENTRE = Intrinsics(fx=200, fy=170, cx=140, cy=110, height=192, width=320)
NEAR_M, FAR_M = 0.1, 12.0

metres = st.floats(-6, 6)
poses = st.builds(
    lambda yaw, pitch, x, y, z: make_c2w(rotation_from_yaw_pitch(yaw, pitch), (x, y, z)),
    st.floats(-180, 180),
    st.floats(-30, 30),
    metres,
    st.floats(-1, 1),
    metres,
)


def points(count, seed=0, intrinsics=CAMERA):
    return sample_frustum(intrinsics, NEAR_M, FAR_M, count, torch.Generator().manual_seed(seed))


def polytope_overlap(query, candidate, intrinsics):
    """The exact ratio by half-space intersection and convex hull."""
    both = np.concatenate([halfspaces(query, intrinsics), halfspaces(candidate, intrinsics)])
    lengths = np.linalg.norm(both[:, :3], axis=1, keepdims=True)
    centre = linprog(
        [0, 0, 0, -1], np.hstack([both[:, :3], lengths]), -both[:, 3], bounds=[(None, None)] * 3 + [(0, None)]
    )
    if not centre.success or centre.x[3] < 1e-6:
        return 0.0
    shared = ConvexHull(HalfspaceIntersection(both, centre.x[:3]).intersections, qhull_options="QJ").volume
    sides = intrinsics.width / intrinsics.fx * intrinsics.height / intrinsics.fy
    return shared / (sides * (FAR_M**3 - NEAR_M**3) / 3)


def halfspaces(c2w, camera):
    """Rows (a, b) with a . p + b <= 0 inside the frustum of a camera."""
    rows = [
        [-camera.fx, 0, -camera.cx, 0],
        [camera.fx, 0, camera.cx - camera.width, 0],
        [0, -camera.fy, -camera.cy, 0],
        [0, camera.fy, camera.cy - camera.height, 0],
        [0, 0, -1, NEAR_M],
        [0, 0, 1, -FAR_M],
    ]
    return np.array(rows) @ invert(c2w)


@settings(max_examples=40)
@given(poses, poses, st.sampled_from([CAMERA, OFF_CENTRE]))
def test_exact_overlap_agrees_with_half_space_intersection(query, candidate, intrinsics):
    ours = exact_overlap(query, candidate, intrinsics, NEAR_M, FAR_M)
    assert ours == pytest.approx(polytope_overlap(query, candidate, intrinsics), abs=1e-5)


@settings(max_examples=40)
@given(poses, poses)
def test_exact_overlap_is_symmetric_and_a_share(first, second):
    there = exact_overlap(first, second, CAMERA, NEAR_M, FAR_M)
    assert 0 <= there <= 1 + 1e-9
    assert there == pytest.approx(exact_overlap(second, first, CAMERA, NEAR_M, FAR_M), abs=1e-6)


@pytest.mark.parametrize("near_m", [0.0, 0.1])
def test_exact_overlap_of_known_pairs(near_m):
    ahead = make_c2w(np.eye(3), (0, 0, 6))
    behind = make_c2w(rotation_from_yaw_pitch(180, 0), (0, 0, 0))
    assert exact_overlap(ahead, ahead, CAMERA, near_m, FAR_M) == pytest.approx(1)
    assert exact_overlap(np.eye(4), behind, CAMERA, near_m, FAR_M) == pytest.approx(0, abs=1e-9)
    # A frustum without a near end, 6 m ahead in the same direction, is inside up to the old far end.
    if near_m == 0:
        assert exact_overlap(ahead, np.eye(4), CAMERA, 0, FAR_M) == pytest.approx(0.5**3)


@pytest.mark.parametrize("intrinsics", [CAMERA, OFF_CENTRE])
def test_sampled_points_are_uniform_in_volume(intrinsics):
    drawn = points(20_000, intrinsics=intrinsics).double()
    x, y, z = drawn.unbind(-1)
    column = x / z * intrinsics.fx + intrinsics.cx
    row = y / z * intrinsics.fy + intrinsics.cy
    shares = {
        "depth": (z**3 - NEAR_M**3) / (FAR_M**3 - NEAR_M**3),
        "columns": column / intrinsics.width,
        "rows": row / intrinsics.height,
    }
    for share in shares.values():
        even = torch.linspace(0, 1, len(share), dtype=torch.float64)
        assert (share.sort().values - even).abs().max() < 0.01


@settings(max_examples=30)
@given(poses, poses, st.integers(0, 2**31))
def test_sampled_overlap_is_within_the_stated_error(query, candidate, seed):
    exact = exact_overlap(query, candidate, CAMERA, NEAR_M, FAR_M)
    for count in (256, 4096):
        share = sampled([query], [candidate], points(count, seed)).item()
        assert abs(share - exact) < 5 * 0.5 / math.sqrt(count)


def test_sampled_overlap_has_no_bias():
    candidates = [
        make_c2w(rotation_from_yaw_pitch(yaw, 0), (x, 0, z))
        for yaw, x, z in [(20, 1, 0), (50, 0, 3), (0, 0, -4)]
    ]
    exact = [exact_overlap(np.eye(4), candidate, CAMERA, NEAR_M, FAR_M) for candidate in candidates]
    estimates = torch.stack([sampled([np.eye(4)], candidates, points(64, seed))[0] for seed in range(400)])
    standard_error = (estimates.std(dim=0) / math.sqrt(400)).numpy()
    assert (np.abs(estimates.mean(dim=0).numpy() - exact) < 4 * standard_error).all()


def test_the_lattice_is_better_than_independent_points():
    candidate = make_c2w(rotation_from_yaw_pitch(25, 5), (1, 0, 1))
    exact = exact_overlap(np.eye(4), candidate, CAMERA, NEAR_M, FAR_M)
    errors = [sampled([np.eye(4)], [candidate], points(256, seed)).item() - exact for seed in range(100)]
    assert np.std(errors) < 0.02 < math.sqrt(exact * (1 - exact) / 256)


def sampled(queries, candidates, drawn):
    return overlap(as_tensor(queries), as_tensor(candidates), drawn, CAMERA, NEAR_M, FAR_M)


def as_tensor(cameras):
    return torch.from_numpy(np.stack(cameras))


def test_far_from_the_origin_nothing_changes():
    near = [make_c2w(rotation_from_yaw_pitch(10 * turn, 0), (0.3 * turn, 0, 0)) for turn in range(6)]
    far = [make_c2w(np.eye(3), (3e5, 0, -7e5)) @ camera for camera in near]
    torch.testing.assert_close(
        sampled(near, near, points(512)), sampled(far, far, points(512)), atol=0.01, rtol=0
    )


def test_pairs_agree_with_all_combinations_and_chunks_with_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    cameras = [
        make_c2w(rotation_from_yaw_pitch(rng.uniform(-90, 90), 0), rng.uniform(-3, 3, 3)) for _ in range(30)
    ]
    whole, drawn = sampled(cameras, cameras, points(128)), points(128)
    pairs = paired_overlap(as_tensor(cameras[1:]), as_tensor(cameras[:-1]), drawn, CAMERA, NEAR_M, FAR_M)
    torch.testing.assert_close(pairs, whole.diagonal(-1), atol=0.02, rtol=0)
    monkeypatch.setattr("worldwire_runtime.camera.frustum._CHUNK_TESTS", 128 * 30 * 4)
    torch.testing.assert_close(sampled(cameras, cameras, drawn), whole, atol=0, rtol=0)


def test_no_candidates_no_shares():
    assert overlap(torch.eye(4)[None], torch.empty(0, 4, 4), points(16), CAMERA, NEAR_M, FAR_M).shape == (
        1,
        0,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_shares():
    cameras = as_tensor(
        [make_c2w(rotation_from_yaw_pitch(5 * turn, 0), (0.2 * turn, 0, 0)) for turn in range(40)]
    )
    on_cpu = overlap(cameras[:3], cameras, points(512), CAMERA, NEAR_M, FAR_M)
    on_gpu = overlap(cameras[:3].cuda(), cameras.cuda(), points(512).cuda(), CAMERA, NEAR_M, FAR_M)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=0.01, rtol=0)
