"""The benchmark measures what a FakeWorld of known speed gives, and its JSON has the promised names."""

import dataclasses
import json
import signal
import subprocess
import sys

import psutil
import pytest
from fake_world import FakeWorld
from server_fixture import serving

import worldwire
from worldwire.cli import main
from worldwire.errors import ConnectionLostError, MachineError
from worldwire_runtime import benchmark
from worldwire_runtime.benchmark import (
    LEAST_WARM_UP_CLIPS,
    _cache_variables,
    local_server,
    measure,
    report,
    table,
    warm_up_clips,
)

STEP_S = 0.04
NAMES = {
    "fps",
    "stages_ms",
    "action_to_photon_ms",
    "startup_s",
    "first_frame_s",
    "settled_s",
    "cold",
    "speed",
    "peak_memory_gib",
    "device",
    "gpus",
    "gpu",
    "threads",
    "preset",
    "resolution",
    "clip_plan",
    "attention",
    "precision",
    "vae_pruning",
    "steps",
    "commit",
    "weights",
    "estimated_memory_gib",
}


@pytest.fixture(scope="module")
def played():
    world = FakeWorld(step_s=STEP_S)
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        shown: list[tuple[str, int, int]] = []
        measured = measure(client, clips=12, samples=10, warm_up=2, progress=lambda *step: shown.append(step))
        return measured, report(measured, client.info, 1.25, 0.5, "fake"), shown


def test_speed_and_stages_are_those_of_the_world(played):
    measured, _, _ = played
    assert 0.5 * 8 / STEP_S < measured.frames_per_second <= 1.05 * 8 / STEP_S
    assert measured.stages_ms["denoise"] == pytest.approx(STEP_S * 1000, rel=0.05)
    assert 0 < measured.stages_ms["transport"] < 100


def test_latency_is_between_half_a_clip_and_a_few(played):
    measured, _, _ = played
    assert len(measured.action_to_photon_ms) == 10
    assert all(STEP_S * 400 < latency < STEP_S * 6000 for latency in measured.action_to_photon_ms)


def test_the_json_has_the_promised_names(played):
    _, result, _ = played
    assert set(json.loads(json.dumps(result))) == NAMES
    assert set(result["stages_ms"]) == {"camera", "memory", "denoise", "decode", "encode", "transport"}
    assert set(result["action_to_photon_ms"]) == {"p50", "p95", "p99"}
    assert set(result["clip_plan"]) == {"first", "past", "new", "memory"}
    assert result["resolution"] == "32x48"
    assert "frames per second" in table(result)


def test_progress_reaches_the_end_of_each_phase(played):
    _, _, shown = played
    assert {("warm-up", 2, 2), ("speed", 12, 12), ("latency", 10, 10)} <= set(shown)


def test_the_long_first_clip_of_the_paper_plan_is_no_trouble():
    with (
        serving(FakeWorld(step_s=0.01, plan="paper")) as server,
        worldwire.connect(server.endpoint) as client,
    ):
        measured = measure(client, plan="paper", clips=2, samples=1, warm_up=1)
    assert measured.stages_ms["denoise"] == pytest.approx(10, rel=0.1)


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(MachineError, match="no-such-preset"), local_server(["--preset", "no-such-preset"]):
        pass


def test_what_the_server_said_is_passed_on_when_a_measurement_fails(caplog):
    def fails() -> None:
        with local_server(["--preset", "test-pattern"]):
            raise ConnectionLostError("no frame came")

    with pytest.raises(ConnectionLostError, match="no frame"):
        fails()
    assert "the server said last" in caplog.text


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_the_server_ends_with_a_benchmark_that_is_killed():
    script = """
import time
from worldwire_runtime.benchmark import local_server
with local_server(["--preset", "test-pattern"]) as (address, _):
    print(address, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as killed:
        address = killed.stdout.readline().strip()
        (server,) = psutil.Process(killed.pid).children()
        killed.kill()
    assert address.startswith("tcp://")
    server.wait(30)


@pytest.mark.parametrize(
    "options", [["--clips", "3"], ["--samples", "1"], ["--json", "/nowhere/at/all.json"]]
)
def test_meaningless_options_are_refused_at_once(options, capsys):
    assert main(["bench", *options]) == 2
    assert "worldwire: " in capsys.readouterr().err


def test_a_checkout_knows_its_commit(monkeypatch):
    monkeypatch.delenv(benchmark.COMMIT_VARIABLE, raising=False)
    found = benchmark.commit()
    assert found is None or len(found.removesuffix("-dirty")) == 40


def test_the_commit_can_be_told(monkeypatch):
    monkeypatch.setenv(benchmark.COMMIT_VARIABLE, "abc")
    assert benchmark.commit() == "abc"
    monkeypatch.delenv(benchmark.COMMIT_VARIABLE)
    monkeypatch.setenv("PATH", "")  # no git
    assert benchmark.commit() is None


def test_the_warm_up_lasts_until_everything_has_settled():
    plan = {"first": 2, "past": 4, "new": 1, "memory": 5}
    info = dataclasses.replace(FakeWorld().info, extra={"clip_plan": plan})
    assert warm_up_clips(info) == 10
    compiled = dataclasses.replace(info, extra={"clip_plan": plan, "speed": {"settling_clips": 9}})
    assert warm_up_clips(compiled) == 19
    rolling = dataclasses.replace(info, extra={"clip_plan": plan, "era_latents": 32})
    assert warm_up_clips(rolling) == 42  # into the second era
    assert warm_up_clips(dataclasses.replace(info, extra={})) == LEAST_WARM_UP_CLIPS


def test_a_cold_start_has_caches_of_its_own(tmp_path):
    told = _cache_variables(tmp_path)
    assert set(told) == {"WORLDWIRE_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    assert all(place.startswith(str(tmp_path)) for place in told.values())
    assert _cache_variables(None) == {}


def test_a_world_without_pictures_is_given_one():
    class Bare(FakeWorld):
        @property
        def info(self):
            return dataclasses.replace(super().info, seed_images=())

    with serving(Bare(step_s=0.01)) as server, worldwire.connect(server.endpoint) as client:
        assert measure(client, clips=2, samples=0, warm_up=1).frames_per_second > 0
