"""Pacing with simulated arrivals: an even picture rate, in order, and a delay that never grows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldwire.api import Frame
from worldwire.pacing import Pacer, Playback


def frame(index: int) -> Frame:
    return Frame(index, np.zeros((1, 1, 3), np.uint8), np.eye(4))


class TestPlayback:
    def play(self, arrivals: list[tuple[float, int]], seconds: float, screen_hz: float = 60.0):
        """Shown frames as (time, index), and the largest backlog after the first two seconds."""
        playback, shown, worst, pushed = Playback(16.0), [], 0, 0
        pending = sorted(arrivals)
        for tick in range(int(seconds * screen_hz)):
            now_s = tick / screen_hz
            while pending and pending[0][0] <= now_s:
                _, count = pending.pop(0)
                playback.push([frame(pushed + item) for item in range(count)], now_s)
                pushed += count
            shown += [(now_s, item.index) for item in playback.due(now_s)]
            if now_s > 2:
                worst = max(worst, playback.backlog)
        return shown, worst

    def test_bursts_are_spread_evenly(self):
        shown, _ = self.play([(burst * 0.8, 8) for burst in range(12)], 9.0)
        times = np.array([when for when, _ in shown if when > 2.5])
        gaps = np.diff(times)
        assert [index for _, index in shown] == list(range(len(shown)))
        assert gaps.max() < 0.2  # 8 frames in 0.8 s: one every 0.1 s

    @pytest.mark.parametrize("screen_hz", [60.0, 7.0])
    def test_the_backlog_does_not_grow(self, screen_hz):
        arrivals = [(burst * 0.5, 8) for burst in range(60)]
        shown, worst = self.play(arrivals, 30.0, screen_hz)
        assert worst <= 16
        assert len(shown) >= 8 * 58

    def test_a_burst_of_bursts_is_caught_up(self):
        arrivals = [(burst * 0.5, 8) for burst in range(10)] + [(5.0, 60)]
        arrivals += [(5.5 + burst * 0.5, 8) for burst in range(20)]
        shown, _ = self.play(arrivals, 16.0)
        assert shown[-1][1] == sum(count for _, count in arrivals) - 1

    @given(st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 40)), min_size=1, max_size=30))
    def test_every_frame_is_shown_in_order(self, gaps):
        playback, now_s, pushed, shown = Playback(16.0), 0.0, 0, []
        for gap, count in gaps:
            now_s += gap
            playback.push([frame(pushed + item) for item in range(count)], now_s)
            pushed += count
            shown += [item.index for item in playback.due(now_s)]
        for _ in range(100_000):
            now_s += 0.1
            shown += [item.index for item in playback.due(now_s)]
            if not playback.backlog:
                break
        assert shown == list(range(pushed))


def test_pacer_holds_a_fast_world_to_its_time_and_lets_a_slow_one_burst():
    pacer, taken, now_s = Pacer(16.0, burst=8), 0, 100.0
    assert pacer.allowance(now_s) == 8
    for _ in range(1000):
        now_s += 0.004
        count = pacer.allowance(now_s)
        pacer.taken(count)
        taken += count
    assert 63 <= taken - 8 <= 64
    assert pacer.allowance(now_s + 50) == 8


def simulate(
    arrivals: list[float], limit: int, screen_hz: float = 120.0
) -> tuple[list[float], list[float], Playback]:
    """When each frame was shown, and how long it had waited; frame k comes at arrivals[k]."""
    playback, shown_s, waited_s, came = Playback(40.0, limit), [], [], 0
    for tick in range(int((arrivals[-1] + 1) * screen_hz)):
        now_s = tick / screen_hz
        while came < len(arrivals) and arrivals[came] <= now_s:
            playback.push([frame(came)], now_s)
            came += 1
        assert playback.backlog <= limit
        for item in playback.due(now_s):
            shown_s.append(now_s)
            waited_s.append(now_s - arrivals[item.index])
    return shown_s, waited_s, playback


def jittery(frames: int, jitter_s: float, rate: float = 40.0) -> list[float]:
    """Arrivals from an even world over a network that delays each frame by up to `jitter_s`, in order."""
    noise = np.random.default_rng(5).uniform(0, jitter_s, frames)
    return np.maximum.accumulate(np.arange(frames) / rate + noise).tolist()


def test_jitter_is_smoothed_and_nothing_is_skipped():
    arrivals = jittery(2000, jitter_s=0.03)
    shown_s, waited_s, playback = simulate(arrivals, limit=8)
    settled = slice(100, None)
    assert playback.skipped == 0
    assert len(shown_s) == len(arrivals)
    assert np.diff(shown_s)[settled].std() < 0.7 * np.diff(arrivals)[settled].std()
    assert np.quantile(waited_s[100:], 0.99) < 0.06


def test_the_delay_after_ten_minutes_is_the_delay_after_ten_seconds():
    _, waited_s, _ = simulate(jittery(24_000, jitter_s=0.02), limit=8, screen_hz=60.0)
    assert np.mean(waited_s[-400:]) < np.mean(waited_s[400:800]) + 0.005


def test_a_network_that_stood_still_gives_the_newest_frames_not_a_backlog():
    arrivals = jittery(400, jitter_s=0.005)
    arrivals = [6.0 if 4.0 < when < 6.0 else when for when in arrivals]  # 80 frames at once
    _, waited_s, playback = simulate(arrivals, limit=8)
    assert playback.skipped > 60
    assert max(waited_s) < 0.3


@given(
    st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(0, 40)), min_size=1, max_size=30), st.integers(1, 20)
)
def test_what_is_shown_is_in_order_and_the_rest_is_counted(gaps, limit):
    playback, now_s, pushed, shown = Playback(16.0, limit), 0.0, 0, []
    for gap, count in gaps:
        now_s += gap
        playback.push([frame(pushed + item) for item in range(count)], now_s)
        pushed += count
        assert playback.backlog <= limit
        shown += [item.index for item in playback.due(now_s)]
    for _ in range(100_000):
        now_s += 0.1
        shown += [item.index for item in playback.due(now_s)]
        if not playback.backlog:
            break
    assert shown == sorted(set(shown))
    assert len(shown) + playback.skipped == pushed
