"""The C++ client without a server: golden vectors, broken messages, axes, and how it installs."""

import json
import random
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from cpp_fixture import CORE, STRICT, needs_compiler, probe, run, sanitized_probe

pytestmark = needs_compiler
__all__ = ["probe", "sanitized_probe"]

VECTORS = Path(__file__).parents[1] / "sdk" / "protocol_vectors"
INDEX = json.loads((VECTORS / "index.json").read_text())
FUZZ_CASES = 100_000
MOST_MUTATED_BYTES = 4096
MOST_GROWTH_KIB = 1024


def reports(program: Path, paths: list[Path]) -> list[dict]:
    """What the C++ client reads in each file, and what it writes for that."""
    done = run(program, "vectors", *paths)
    return [json.loads(line) for line in done.stdout.splitlines()]


def unpacked(fields: object) -> object:
    """Maps that the client keeps packed, as what they hold."""
    if isinstance(fields, dict):
        if fields.keys() == {"packed"}:
            return msgpack.unpackb(bytes.fromhex(fields["packed"])) if fields["packed"] else {}
        return {name: unpacked(value) for name, value in fields.items()}
    return [unpacked(item) for item in fields] if isinstance(fields, list) else fields


def typed(value: object) -> object:
    """The value such that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), value)


def test_golden_vectors_byte_for_byte(sanitized_probe):
    names = [entry["name"] for entry in INDEX["vectors"]]
    for name, report in zip(
        names, reports(sanitized_probe, [VECTORS / f"{name}.msgpack" for name in names]), strict=True
    ):
        fields = json.loads((VECTORS / f"{name}.json").read_text())
        assert report["type"] == fields.pop("type"), name
        assert typed(unpacked(report["fields"])) == typed(fields), name
        assert report["encoded"] == (VECTORS / f"{name}.msgpack").read_bytes().hex(), name


def test_what_must_be_refused_is_refused(sanitized_probe):
    names = [entry["name"] for entry in INDEX["refused"]]
    found = reports(sanitized_probe, [VECTORS / "refused" / f"{name}.msgpack" for name in names])
    assert {name: report["result"] for name, report in zip(names, found, strict=True)} == {
        entry["name"]: entry["code"] for entry in INDEX["refused"]
    }


def test_what_must_be_tolerated_reads_as_its_vector(sanitized_probe):
    names = [entry["name"] for entry in INDEX["tolerated"]]
    found = reports(sanitized_probe, [VECTORS / "tolerated" / f"{name}.msgpack" for name in names])
    assert {name: report["encoded"] for name, report in zip(names, found, strict=True)} == {
        entry["name"]: (VECTORS / f"{entry['same_as']}.msgpack").read_bytes().hex()
        for entry in INDEX["tolerated"]
    }


def test_queue_clock_addresses_and_encoder(sanitized_probe):
    run(sanitized_probe, "units")


def mutated(data: bytearray, chance: random.Random) -> bytes:
    """A message with a few bytes changed, cut out, put in, or its end missing."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(len(data) + 1)
        kind = chance.choice([0, 0, 0, 1, 2, 3])
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randint(1, 8)]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 8))
        elif kind == 3 and chance.random() < 0.2:
            del data[at:]
    return bytes(data)


@pytest.fixture(scope="module")
def mutations(tmp_path_factory) -> Path:
    """Broken messages, made from all golden ones that are not too long."""
    chance = random.Random(5)
    seeds = [path.read_bytes() for path in sorted(VECTORS.rglob("*.msgpack"))]
    seeds = [seed for seed in seeds if len(seed) <= MOST_MUTATED_BYTES]
    file = tmp_path_factory.mktemp("fuzz") / "cases"
    with file.open("wb") as out:
        for number in range(FUZZ_CASES):
            case = mutated(bytearray(seeds[number % len(seeds)]), chance)
            out.write(struct.pack("<I", len(case)) + case)
    return file


@pytest.mark.parametrize("verb", ["fuzz", "fuzz-stream"])
def test_broken_messages_do_no_harm(sanitized_probe, probe, mutations, verb):
    for program in (sanitized_probe, probe):
        report = json.loads(run(program, verb, mutations).stdout)
        assert report["cases"] == FUZZ_CASES
        assert report["refused"] > 0
    assert report["growth_kib"] <= MOST_GROWTH_KIB  # of the plain one: a sanitizer keeps what was freed


def basis(right: str, up: str, forward: str) -> np.ndarray:
    """Columns: where an engine's x, y, z axes point on the wire (right = x, up = -y, forward = z)."""
    wire = {right: [1.0, 0.0, 0.0], up: [0.0, -1.0, 0.0], forward: [0.0, 0.0, 1.0]}
    columns = []
    for axis in "xyz":
        sign = 1.0 if axis in wire else -1.0
        columns.append(sign * np.array(wire.get(axis) or wire[f"-{axis}"]))
    return np.stack(columns, axis=1)


ENGINES = {
    "unity": (basis("x", "y", "z"), 1.0),
    "unreal": (basis("y", "z", "x"), 0.01),
    "ros": (basis("-y", "z", "x"), 1.0),
    "opengl": (basis("x", "y", "-z"), 1.0),
}


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """The matrix of a quaternion x, y, z, w; the same formula in left-handed axes."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_axes_convert_any_pose_and_back(probe, engine):
    chance = np.random.default_rng(3)
    positions = chance.normal(size=(500, 3)) * 10
    quaternions = chance.normal(size=(500, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    lines = [
        " ".join([engine, *map(repr, map(float, [*p, *q]))])
        for p, q in zip(positions, quaternions, strict=True)
    ]
    done = run(probe, "axes", input="\n".join(lines))
    found = np.array([line.split() for line in done.stdout.splitlines()], float)
    axes, metres = ENGINES[engine]
    for row, p, q in zip(found, positions, quaternions, strict=True):
        np.testing.assert_allclose(row[:3], axes @ p * metres, atol=1e-9)
        np.testing.assert_allclose(rotation(row[3:7]), axes @ rotation(q) @ axes.T, atol=1e-9)
        np.testing.assert_allclose(row[7:], [*p, *q], atol=1e-9)


HOSTILE_USER = """
#define check(x) static_assert(false, "the macro of an engine")
#define verify(x) check(x)
#define ensure(x) check(x)
#define min(a, b) check(a)
#define max(a, b) check(a)
#define small char
#define near
#define far
#define interface struct
#define TEXT(x) L##x
#define ERROR 0
#define PI 3
#include <worldwire/worldwire.h>
#ifdef _WINDOWS_
#error windows.h came along
#endif
int main() {
  worldwire::Client client({"tcp://127.0.0.1:1"});
  client.poll(0);
  return client.problem().text.empty() ? 0 : 0;
}
"""


def test_an_installed_copy_is_found_and_bears_the_macros_of_engines(probe, tmp_path):
    run("cmake", "--install", probe.parent, "--prefix", tmp_path / "installed")
    (tmp_path / "user.cpp").write_text(HOSTILE_USER)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(user CXX)\n"
        "find_package(worldwire 1.0 REQUIRED)\nadd_executable(user user.cpp)\n"
        "target_link_libraries(user PRIVATE worldwire::worldwire)\n"
    )
    run(
        "cmake",
        "-S",
        tmp_path,
        "-B",
        tmp_path / "build",
        f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}",
        f"-DCMAKE_CXX_FLAGS={STRICT}",
    )
    run("cmake", "--build", tmp_path / "build")
    run(tmp_path / "build" / "user")


def test_headers_name_no_system():
    for header in (CORE / "include").rglob("*.h"):
        text = header.read_text()
        assert not [name for name in ("windows.h", "<sys/", "zmq.h") if name in text], header.name
