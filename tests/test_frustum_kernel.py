"""The frustum kernel against plain torch: on the GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (it is for Linux alone)")

from worldwire.camera import Intrinsics, make_c2w, rotation_from_yaw_pitch
from worldwire_runtime.camera import frustum
from worldwire_runtime.camera.frustum import NEAR_M, _share_inside, image_scales, overlap, sample_frustum
from worldwire_runtime.kernels import frustum as kernels
from worldwire_runtime.kernels.frustum import share_inside
from worldwire_runtime.memory import HELD, RECENCY, Memory

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CAMERA, FAR_M = Intrinsics.from_fov(192, 320, 80), 12.0
OFF_CENTRE = Intrinsics(fx=200, fy=170, cx=140, cy=110, height=192, width=320)


def random_cameras(count, seed, offset_m=(0.0, 0.0, 0.0)):
    """[count, 4, 4] within a few metres of `offset_m`."""
    rng = np.random.default_rng(seed)
    made = [
        make_c2w(
            rotation_from_yaw_pitch(rng.uniform(-180, 180), rng.uniform(-30, 30)),
            rng.uniform(-4, 4, 3) + np.asarray(offset_m),
        )
        for _ in range(count)
    ]
    return torch.from_numpy(np.stack(made))


def sampled(points, intrinsics=CAMERA):
    return sample_frustum(intrinsics, NEAR_M, FAR_M, points, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("pairs", "points"), [(0, 16), (1, 7), (70, 100), (200, 256)])
def test_the_kernel_counts_as_plain_torch_does(pairs, points):
    torch.manual_seed(0)
    sample = sample_frustum(CAMERA, NEAR_M, FAR_M, points, torch.Generator().manual_seed(0))
    sample = torch.nn.functional.pad(sample, (0, 1), value=1.0).T.contiguous()
    rows = torch.eye(3, 4)[:, None] + 0.3 * torch.randn(3, pairs, 4)
    ours = share_inside(rows.to(DEVICE), sample.to(DEVICE), NEAR_M, FAR_M).cpu()
    plain = _share_inside(rows, sample, NEAR_M, FAR_M)
    assert ours.shape == plain.shape
    # a fused multiply-add may move a point that lies on a face
    assert (ours - plain).abs().max() <= 1.5 / points if pairs else True
    assert pairs < 70 or 0 < plain.mean() < 1


@pytest.mark.parametrize(
    ("queries", "count", "points", "intrinsics", "offset_m"),
    [
        (1, 1, 7, CAMERA, (0, 0, 0)),
        (3, 131, 100, OFF_CENTRE, (0, 0, 0)),
        (5, 64, 256, OFF_CENTRE, (3e5, 0, -7e5)),
        (2, 0, 16, CAMERA, (0, 0, 0)),
    ],
)
def test_the_kernel_reads_cameras_as_plain_torch_does(queries, count, points, intrinsics, offset_m):
    cameras, sample = random_cameras(queries + count, 0, offset_m), sampled(points, intrinsics)
    asked, past = cameras[:queries], cameras[queries:]
    plain = overlap(asked, past, sample, intrinsics, NEAR_M, FAR_M)
    ours = kernels.shares(
        asked.to(DEVICE), past.to(DEVICE), sample.to(DEVICE), image_scales(intrinsics), NEAR_M, FAR_M
    ).cpu()
    assert (ours.shape, ours.dtype) == (plain.shape, plain.dtype)
    assert (ours - plain).abs().max() <= 1.5 / points if count else True
    assert count < 64 or 0 < plain.mean() < 1


@pytest.mark.parametrize(
    ("count", "held"), [(1, ()), (5, (0,)), (64, ()), (64, (63,)), (331, (4, 200, 200, 330))]
)
def test_the_kernel_ranks_as_plain_torch_does(count, held, monkeypatch):
    """The best of its own shares, so that a point on a face is nobody's fault; few points, so many ties."""
    monkeypatch.setattr(kernels, "BLOCKS", 4)  # more blocks than that are a kernel of their own
    cameras, sample = random_cameras(count + 3, 1), sampled(20).to(DEVICE)
    past, view = cameras[3:].to(DEVICE), (sample, image_scales(CAMERA), NEAR_M, FAR_M)
    reach, score = min(count, 21), {"newest": RECENCY, "held": held, "bonus": HELD}
    newer = RECENCY / count * torch.arange(count, dtype=torch.float64)
    newer[list(held)] += HELD
    shares = kernels.shares(cameras[:3].to(DEVICE), past, *view).cpu()
    best = torch.where(shares > 0, shares + newer, -1.0).topk(reach, dim=1)
    wanted = [columns[values > 0].tolist() for values, columns in zip(*best, strict=True)]
    for place in {"cpu", DEVICE}:
        assert kernels.best_columns(cameras[:3].to(place), past, *view, reach=reach, **score) == wanted
    assert count < 64 or all(wanted)


@pytest.mark.parametrize(
    ("before", "held"), [(0, ()), (1, (0,)), (149, ()), (310, ()), (310, (3, 155, 200, 309))]
)
def test_a_memory_chooses_by_kernel_as_by_plain_torch(before, held, monkeypatch):
    cameras = random_cameras(304, 2)
    plain, ours = Memory(CAMERA, points=64), Memory(CAMERA, points=64, device=DEVICE)
    for memory in (plain, ours):
        memory.add(torch.zeros(150, 1, 1, 1), cameras[:150])
        memory.add(torch.zeros(150, 1, 1, 1), cameras[150:300], range(160, 310))  # ten are thinned away
    wanted = plain.select(cameras[300:], 5, before, held)
    monkeypatch.setattr(frustum, "has_kernel", lambda _: True)
    monkeypatch.setattr("worldwire_runtime.memory.select_memory", None)
    for place in {"cpu", DEVICE}:
        assert ours.select(cameras[300:].to(place), 5, before, held) == wanted
    assert len(wanted) == min(5, before)
    elsewhere = torch.from_numpy(make_c2w(np.eye(3), (500, 0, 0)))[None]
    assert ours.select(elsewhere, 1, before) == []


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_five_queries_against_20000_cameras():
    """Equal shares on both devices; how long it takes is `benchmarks/retrieval.py`'s to say."""
    torch.manual_seed(0)
    cameras = torch.eye(4, dtype=torch.float64).repeat(20_005, 1, 1)
    cameras[:, :3, 3] = torch.randn(20_005, 3) * 10
    sample = sample_frustum(CAMERA, NEAR_M, FAR_M, 256, torch.Generator().manual_seed(0))
    shares = [
        overlap(cameras[:5].to(place), cameras[5:].to(place), sample.to(place), CAMERA, NEAR_M, FAR_M).cpu()
        for place in ("cpu", "cuda")
    ]
    assert (shares[0] - shares[1]).abs().max() <= 2 / 256
