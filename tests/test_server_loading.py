"""While a world loads: status tells how far it is; a real world tells its parts."""

import threading

from fake_world import FakeWorld
from server_fixture import LOOPBACK, RawPeer, wait_until
from worlds import write_random_world

from worldwire.inputs import Inputs
from worldwire.protocol import VERSION, Hello, Status, StatusReport, Welcome
from worldwire_runtime.server import Loading, Server
from worldwire_runtime.world import World


def test_status_and_hello_tell_the_progress():
    told, go_on, loading = threading.Event(), threading.Event(), Loading()

    def load() -> FakeWorld:
        loading.tell(0.25, "reading weights")
        told.set()
        assert go_on.wait(60)
        return FakeWorld()

    server = Server(load, LOOPBACK, loading=loading)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with RawPeer(server.endpoint, greet=False) as peer:
            assert told.wait(30)
            for message in (Status(request=1), Hello(request=2, version=VERSION, client="early")):
                peer.send(message)
                report = peer.receive()
                assert isinstance(report, StatusReport)
                assert (report.state, report.progress, report.stage) == ("loading", 0.25, "reading weights")
            go_on.set()

            def is_welcome() -> bool:
                peer.send(Hello(request=3, version=VERSION, client="later"))
                return isinstance(peer.receive(), Welcome)

            wait_until(is_welcome)
            peer.send(Status(request=4))
            report = peer.receive()
            assert isinstance(report, StatusReport)
            assert (report.state, report.progress, report.stage) == ("ready", None, None)
    finally:
        go_on.set()
        server.stop()
        thread.join(60)


def test_a_real_world_tells_its_parts_and_takes_a_prompt_on_the_way(tmp_path):
    told: list[tuple[float, str]] = []
    world = World.load(
        write_random_world(tmp_path),
        "cpu",
        "float32",
        progress=lambda part, stage: told.append((part, stage)),
    )
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert 0 <= parts[0] < parts[-1] <= 1
    assert any("dit" in stage for _, stage in told)
    one, other = world.session(), world.session()
    for session in (one, other):
        session.reset("a village", seed=1)
        session.step(Inputs())
    other.set_prompt("a desert at night")
    same, changed = one.step(Inputs())[-1], other.step(Inputs())[-1]
    assert same.index == changed.index
    assert (same.pixels != changed.pixels).any()
