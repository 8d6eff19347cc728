"""The frustum kernel against plain torch: on the GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (it is for Linux alone)")

from worldwire.camera import Intrinsics
from worldwire_runtime.camera.frustum import NEAR_M, _share_inside, overlap, sample_frustum
from worldwire_runtime.kernels.frustum import share_inside

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CAMERA, FAR_M = Intrinsics.from_fov(192, 320, 80), 12.0


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
