"""The viewer's pure parts: keys and mouse, pacing, meters, scripts."""

import numpy as np
import pytest
from fakes import SceneWorld

from worldwire import Frame, Inputs
from worldwire.errors import ConfigError
from worldwire.viewer.controls import ARROW_DEG_PER_FRAME, MOUSE_DEG_PER_PIXEL, Command, Controls
from worldwire.viewer.meters import LatencyMeter, RateMeter
from worldwire.viewer.script import fit, load_script, parse_script, walk


def frame(index: int) -> Frame:
    return Frame(index, np.zeros((2, 2, 3), np.uint8), np.eye(4))


class TestControls:
    def test_held_keys_follow_presses_and_releases(self):
        controls = Controls()
        controls.press("w")
        controls.press("d")
        assert controls.keys == {"forward", "right"}
        controls.release("w")
        controls.release("x")  # was never held
        assert controls.keys == {"right"}

    def test_losing_focus_releases_everything(self):
        controls = Controls(mouse_captured=True)
        controls.press("w")
        controls.press("left")
        controls.move_mouse(50, 10)
        controls.release_all()
        assert controls.keys == frozenset()
        assert controls.take_look(world_frames=4) == (0, 0)
        assert not controls.mouse_captured

    def test_mouse_motion_gathers_until_it_is_taken(self):
        controls = Controls(mouse_captured=True)
        controls.move_mouse(10, 0)
        controls.move_mouse(20, -5)
        yaw, pitch = controls.take_look(world_frames=1)
        assert yaw == pytest.approx(30 * MOUSE_DEG_PER_PIXEL)
        assert pitch == pytest.approx(5 * MOUSE_DEG_PER_PIXEL)  # the mouse went up: look up
        assert controls.take_look(world_frames=1) == (0, 0)

    def test_a_free_mouse_does_not_look(self):
        controls = Controls()
        controls.move_mouse(100, 100)
        assert controls.take_look(world_frames=1) == (0, 0)

    def test_arrows_turn_by_world_frames(self):
        controls = Controls()
        controls.press("right")
        controls.press("up")
        assert controls.take_look(2) == (2 * ARROW_DEG_PER_FRAME, 2 * ARROW_DEG_PER_FRAME)
        controls.press("left")
        assert controls.take_look(2)[0] == 0

    def test_commands_come_once_and_escape_frees_the_mouse(self):
        controls = Controls(mouse_captured=True)
        assert controls.press("p") is Command.PAUSE
        assert controls.press("f12") is Command.SCREENSHOT
        assert controls.press("w") is None
        assert controls.press("escape") is Command.RELEASE_MOUSE
        assert not controls.mouse_captured

    def test_typing_a_prompt_does_not_walk(self):
        controls = Controls()
        controls.press("w")
        assert controls.press("t") is Command.EDIT_PROMPT
        assert controls.keys == frozenset()
        controls.press("w")
        controls.type_text("rooms")
        controls.press("backspace")
        controls.type_text("\x00 at dusk")
        assert controls.keys == frozenset()
        assert controls.press("return") is Command.SUBMIT_PROMPT
        assert controls.take_draft() == "room at dusk"
        controls.press("w")
        assert controls.keys == {"forward"}

    def test_escape_leaves_the_prompt(self):
        controls = Controls()
        controls.press("t")
        controls.type_text("x")
        assert controls.press("escape") is None
        assert controls.draft is None


class TestMeters:
    def test_rate_of_bursts(self):
        meter = RateMeter()
        for burst in range(5):
            meter.add(8, burst * 0.5)
        assert meter.rate(2.0) == pytest.approx(16)
        assert meter.rate(60.0) == 0

    def test_latency_is_the_longest_wait_that_a_frame_ends(self):
        meter = LatencyMeter()
        meter.sent(1, 10.0)
        meter.sent(2, 10.2)
        meter.sent(3, 10.3)
        meter.shown(0, 10.4)
        assert meter.last_ms is None
        meter.shown(2, 10.5)
        assert meter.last_ms == pytest.approx(500)
        meter.shown(3, 10.6)
        assert meter.last_ms == pytest.approx(300)
        meter.shown(3, 11.0)
        assert meter.last_ms == pytest.approx(300)


class TestScript:
    def test_text_and_json_mean_the_same(self):
        text = "# a walk\n2 forward left yaw=3 pitch=-0.5  # curve\n\n1\n"
        json = '[{"frames": 2, "keys": ["forward", "left"], "yaw_deg": 3, "pitch_deg": -0.5}, {"frames": 1}]'
        assert parse_script(text) == parse_script(json)
        assert parse_script(text)[0] == Inputs({"forward", "left"}, 3.0, -0.5)

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "",
                "forward",
                "8 sideways",
                "8 yaw=left",
                "0 forward",
                "8 forward roll=3",
                "8 yaw=999",
                "8 yaw=nan",
            ),
            *("[1]", "[{", '[{"frame": 3}]', '[{"frames": 2, "keys": 5}]'),
        ],
    )
    def test_mistakes_are_named(self, text):
        with pytest.raises(ConfigError):
            parse_script(text, "walk.txt")

    def test_the_line_is_named(self):
        with pytest.raises(ConfigError, match=r"walk.txt, line 2.*sideways"):
            parse_script("8 forward\n8 sideways", "walk.txt")

    def test_files(self, tmp_path):
        (tmp_path / "walk.txt").write_text("3 back")
        assert load_script(str(tmp_path / "walk.txt")) == [Inputs({"back"})] * 3
        with pytest.raises(ConfigError, match="cannot be read"):
            load_script(str(tmp_path / "absent.txt"))

    def test_the_demo_goes_forward_turns_and_comes_back(self):
        demo = load_script("demo")
        assert len(demo) >= 100
        assert any("forward" in inputs.keys and inputs.yaw_deg for inputs in demo)
        assert sum(inputs.yaw_deg for inputs in demo if not inputs.keys) == pytest.approx(180)

    def test_walk_steps_through_a_session_whose_steps_do_not_divide_it(self):
        session = SceneWorld().session()
        session.reset()
        script = fit(load_script("demo"), 21)
        walked = list(walk(session, script))
        assert [inputs for inputs, _ in walked] == script
        assert [item.index for _, item in walked] == list(range(1, 22))
        assert walked[-1][1].c2w[2, 3] > 2
