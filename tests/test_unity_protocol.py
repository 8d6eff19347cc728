"""The C# client's messages: golden bytes, its own tests under mono, decoders that survive anything."""

import json
import random
import struct

import numpy as np
import pytest
from pyquaternion import Quaternion
from unity_build import Built, build, needs_mono, run

from protocol_vectors import FOLDER
from worldwire.camera import Intrinsics
from worldwire.reprojection import homography

pytestmark = needs_mono

MUTATIONS = 20_000
ALLOWED_GROWTH_BYTES = 2 << 20


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    return build(tmp_path_factory.getbasetemp() / "unity")


def test_golden_vectors_are_encoded_and_decoded_byte_for_byte(built):
    index = json.loads((FOLDER / "index.json").read_text())
    count = sum(len(index[part]) for part in ("vectors", "refused", "tolerated"))
    assert run("mono", built.client, "vectors", FOLDER).splitlines()[-1] == f"vectors {count} failed 0"


def test_the_tests_of_the_package_pass_under_stand_ins(built):
    assert "failed 0" in run("mono", built.components, "nunit", built.editor_tests, built.runtime_tests)


def test_nothing_static_can_change_so_that_play_works_without_domain_reload(built):
    assert run("mono", built.components, "statics", built.core, built.unity, built.editor) == ""


def test_mutated_messages_are_refused_or_read_and_nothing_grows(built, tmp_path):
    rng = random.Random(0)
    golden = [path.read_bytes() for path in sorted(FOLDER.rglob("*.msgpack"))]
    cases = tmp_path / "cases"
    with cases.open("wb") as file:
        for _ in range(MUTATIONS):
            mutant = mutate(bytearray(rng.choice(golden)), rng)
            file.write(struct.pack("<I", len(mutant)) + mutant)
    told = json.loads(run("mono", built.client, "fuzz", cases))
    assert told["cases"] == MUTATIONS == told["refused"] + told["accepted"]
    assert told["refused"] > told["accepted"] > 0
    assert told["grown_bytes"] < ALLOWED_GROWTH_BYTES


def mutate(data: bytearray, rng: random.Random) -> bytes:
    """A few bytes changed, taken out or put in."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(3)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 6)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 6))
    return bytes(data)


def test_servers_that_spoil_their_frames_end_the_connection_and_nothing_else(built):
    assert run("mono", built.client, "hostile", "200").startswith("rounds 200 ")


def test_reprojection_is_that_of_the_numpy_reference(built):
    cameras = [Intrinsics.from_fov(96, 160, 80.0), Intrinsics.from_fov(120, 120, 50.0)]
    tangents = [tangent for camera in cameras for tangent in half_tangents(camera)]
    pairs = [(Quaternion.random(), Quaternion.random()) for _ in range(50)]
    lines = []
    for pair in pairs:
        numbers = [number for q in pair for number in (q.x, q.y, q.z, q.w)] + tangents
        lines.append(" ".join(repr(float(number)) for number in numbers))
    told = run("mono", built.components, "warp", stdin="\n".join(lines)).splitlines()
    for (frame, head), line in zip(pairs, told, strict=True):
        ours = np.array([float(word) for word in line.split()]).reshape(3, 3)
        reference = homography(frame.transformation_matrix, head.transformation_matrix, *cameras)
        np.testing.assert_allclose(
            ours / np.linalg.norm(ours), reference / np.linalg.norm(reference), atol=1e-9
        )


def half_tangents(camera: Intrinsics) -> tuple[float, float]:
    """Of half the horizontal and half the vertical field of view."""
    return camera.width / 2 / camera.fx, camera.height / 2 / camera.fy
