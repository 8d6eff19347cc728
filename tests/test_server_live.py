"""Live inputs: no press, release or look is lost, and the ack never promises too much."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldwire.camera import make_c2w, rotation_from_yaw_pitch
from worldwire.errors import BusyError, InputError, ProtocolError
from worldwire.inputs import KEYS
from worldwire.protocol import Input, pose_fields
from worldwire_runtime.server.live import MAX_WAITING_EDGES, LiveInputs, between


def tell(live: LiveInputs, seq: int, keys=(), look_deg=(0.0, 0.0), **pose) -> None:
    live.add(Input(session=1, seq=seq, keys=tuple(keys), look_deg=look_deg, **pose))


def held(planned, key="forward") -> list[bool]:
    return [key in plan.inputs.keys for plan in planned]


def test_held_keys_stay_held_over_steps():
    live = LiveInputs()
    tell(live, 1, ["forward"])
    assert held(live.take(4, None)) == [True] * 4
    assert held(live.take(4, None)) == [True] * 4
    tell(live, 2)
    assert held(live.take(4, None)) == [False] * 4


def test_a_tap_between_two_steps_shows_for_one_frame():
    live = LiveInputs()
    tell(live, 1, ["forward"])
    tell(live, 2)
    planned = live.take(4, None)
    assert held(planned) == [True, False, False, False]
    assert [plan.ack for plan in planned] == [1, 2, 2, 2]


def test_a_short_release_shows_for_one_frame():
    live = LiveInputs()
    tell(live, 1, ["forward"])
    live.take(2, None)
    tell(live, 2)
    tell(live, 3, ["forward"])
    assert held(live.take(3, None)) == [False, True, True]


def test_edges_without_a_frame_wait_for_the_next_step():
    live = LiveInputs()
    for seq in range(1, 7):
        tell(live, seq, ["jump"] if seq % 2 else [])
    first, second = live.take(4, None), live.take(4, None)
    assert held(first + second, "jump") == [True, False, True, False, True, False, False, False]
    assert [plan.ack for plan in first + second] == [1, 2, 3, 4, 5, 6, 6, 6]


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from(KEYS)), max_size=20), st.integers(1, 9))
def test_every_edge_is_played_exactly_once(states, frames):
    live = LiveInputs()
    for seq, keys in enumerate(states, start=1):
        tell(live, seq, keys)
    planned = [plan for _ in range(25) for plan in live.take(frames, None)]
    for key in KEYS:
        asked = sum(
            a != b
            for a, b in zip([False, *(key in s for s in states)], [key in s for s in states], strict=False)
        )
        played = held(planned, key)
        assert sum(a != b for a, b in zip([False, *played], played, strict=False)) == asked
    acks = [plan.ack for plan in planned]
    assert acks == sorted(acks)
    assert acks[-1] == len(states)


def test_look_is_spread_and_none_of_it_is_lost():
    live = LiveInputs()
    tell(live, 1, look_deg=(6.0, -2.0))
    tell(live, 2, look_deg=(2.0, 0.0))
    planned = live.take(8, None)
    assert [plan.inputs.yaw_deg for plan in planned] == [1.0] * 8
    assert sum(plan.inputs.pitch_deg for plan in planned) == pytest.approx(-2.0)
    assert all(plan.inputs.yaw_deg == 0 for plan in live.take(8, None))


def test_look_beyond_one_step_turns_in_the_next():
    live = LiveInputs()
    for seq in range(1, 6):
        tell(live, seq, look_deg=(170.0, 0.0))
    turned = [plan.inputs.yaw_deg for _ in range(4) for plan in live.take(2, None)]
    assert sum(turned) == pytest.approx(850)


def test_the_camera_goes_evenly_to_a_pose_and_stays():
    live = LiveInputs()
    target = make_c2w(rotation_from_yaw_pitch(40, 0), (0, 0, 4))
    tell(live, 1, **pose_fields(target))
    planned = live.take(4, np.eye(4))
    assert [plan.inputs.c2w[2, 3] for plan in planned] == pytest.approx([1, 2, 3, 4])
    np.testing.assert_allclose(planned[1].inputs.c2w[:3, :3], rotation_from_yaw_pitch(20, 0), atol=1e-9)
    np.testing.assert_allclose(live.take(1, planned[-1].inputs.c2w)[0].inputs.c2w, target, atol=1e-9)
    tell(live, 2, ["forward"])
    assert live.take(1, target)[0].inputs.c2w is None


def test_between_ends_exactly():
    end = make_c2w(rotation_from_yaw_pitch(-100, 20), (1, 2, 3))
    np.testing.assert_array_equal(between(np.eye(4), end, 3)[-1], end)


def test_bad_inputs_change_nothing():
    live = LiveInputs()
    tell(live, 5, ["forward"])
    for wrong, error in [
        ({"seq": 5}, ProtocolError),
        ({"seq": 4}, ProtocolError),
        ({"seq": 6, "keys": ["fly"]}, InputError),
        ({"seq": 6, "look_deg": (1e9, 0.0)}, InputError),
        ({"seq": 6, "position_m": (0.0, 0.0, 0.0)}, InputError),
        ({"seq": 6, "position_m": (0.0, 0.0, 0.0), "quaternion_xyzw": (0.0, 0.0, 0.0, 0.0)}, InputError),
    ]:
        with pytest.raises(error):
            tell(live, **wrong)
    assert [plan.ack for plan in live.take(1, None)] == [5]


def test_toggling_without_end_is_refused():
    live = LiveInputs()
    for seq in range(1, MAX_WAITING_EDGES + 1):
        tell(live, seq, ["jump"] if seq % 2 else [])
    with pytest.raises(BusyError, match="toggle faster"):
        tell(live, MAX_WAITING_EDGES + 1, ["jump"])


def test_a_reset_forgets_motion_but_not_hands():
    live = LiveInputs()
    tell(live, 1, ["left"], (90.0, 0.0))
    tell(live, 2, ["forward"])
    live.forget()
    planned = live.take(2, None)
    assert held(planned) == [True, True]
    assert not any(held(planned, "left"))
    assert planned[0].inputs.yaw_deg == 0
    assert planned[0].ack == 2
