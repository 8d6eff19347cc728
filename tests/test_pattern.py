"""The synthetic world: what its pictures say is what was played, in every size and through lossy codecs."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from worldwire.camera import make_c2w, rotation_from_yaw_pitch
from worldwire.errors import ConfigError, DataError, ImageError, InputError, StateError
from worldwire.inputs import Inputs
from worldwire_runtime.test_pattern import PatternWorld, prompt_crc, read_pattern

SIZES = [(704, 1280), (192, 320), (96, 160), (480, 642)]
WALK = Inputs(frozenset({"forward", "jump"}), yaw_deg=1.5, pitch_deg=-0.25)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_says_what_was_played(height, width):
    session = PatternWorld(height, width).session()
    first = session.reset(prompt="a village")
    assert first.pixels.shape == (height, width, 3)
    assert read_pattern(first.pixels).frame == 0
    frames = [session.step(WALK)[0] for _ in range(30)]
    told = read_pattern(frames[-1].pixels)
    assert (told.frame, told.keys, told.prompt_crc) == (30, WALK.keys, prompt_crc("a village"))
    assert told.position_m == pytest.approx(frames[-1].c2w[:3, 3], abs=1e-3)
    assert (told.yaw_deg, told.pitch_deg) == pytest.approx((45, -7.5), abs=0.01)


def test_the_pattern_survives_jpeg():
    session = PatternWorld(96, 160).session()
    session.reset()
    stream = io.BytesIO()
    Image.fromarray(session.step(WALK)[0].pixels).save(stream, "JPEG", quality=40)
    assert read_pattern(np.asarray(Image.open(stream))).frame == 1


def test_another_picture_is_no_pattern():
    with pytest.raises(DataError):
        read_pattern(np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8))


def test_a_pose_places_the_camera():
    session = PatternWorld(192, 320).session()
    session.reset()
    target = make_c2w(rotation_from_yaw_pitch(-120, 40), (3, -2, 7))
    told = read_pattern(session.step(Inputs(c2w=target))[0].pixels)
    assert told.position_m == pytest.approx((3, -2, 7))
    assert (told.yaw_deg, told.pitch_deg) == pytest.approx((-120, 40), abs=0.01)


def test_every_direction_can_be_looked_at():
    session = PatternWorld(192, 320).session()
    session.reset()
    for pitch in (-90, -60, 0, 60, 90):
        for yaw in range(-180, 181, 45):
            pose = make_c2w(rotation_from_yaw_pitch(yaw, pitch), (0, 0, 0))
            assert read_pattern(session.step(Inputs(c2w=pose))[0].pixels).frame > 0


def test_walking_and_turning_move_the_picture():
    session = PatternWorld(192, 320).session()
    still = session.reset().pixels
    ahead = session.step(Inputs(frozenset({"forward"})))[0].pixels
    turned = session.step(Inputs(yaw_deg=10))[0].pixels
    sky, ground = slice(60, 90), slice(110, 192)
    np.testing.assert_array_equal(still[sky], ahead[sky])
    assert (still[ground] != ahead[ground]).any()
    assert (turned[sky] != ahead[sky]).any()


def test_saved_and_branched_sessions_go_on_alike():
    session = PatternWorld(192, 320, frames_per_step=4).session()
    session.reset(image="dusk", seed=3)
    session.step(WALK)
    state, branch = session.save(), session.branch()
    expected = session.step(WALK)[-1].pixels
    np.testing.assert_array_equal(branch.step(WALK)[-1].pixels, expected)
    session.restore(state)
    np.testing.assert_array_equal(session.step(WALK)[-1].pixels, expected)


def test_a_new_prompt_shows_from_the_next_frame_on():
    session = PatternWorld(192, 320).session()
    session.reset(prompt="day")
    session.set_prompt("night")
    assert read_pattern(session.step(Inputs())[0].pixels).prompt_crc == prompt_crc("night")


def test_a_seed_picture_is_shown_in_frame_0():
    session = PatternWorld(192, 320).session()
    picture = np.full((192, 320, 3), 77, np.uint8)
    assert (session.reset(image=picture).pixels[100:] == 77).all()
    assert (picture == 77).all()
    with pytest.raises(ImageError):
        session.reset(image=picture[:10])


def test_bad_calls_are_typed_errors():
    world = PatternWorld(192, 320)
    session = world.session()
    for call in (lambda: session.step(Inputs()), session.save, lambda: session.set_prompt("x")):
        with pytest.raises(StateError):
            call()
    session.reset()
    good = session.save()
    bad = [good.replace(b'"index": 0', b'"index": "0"'), good.replace(b'"x_m": 0.0', b'"x_m": 1e300')]
    assert good not in bad
    session.close()
    for state in (b"", b"[]", b'{"image": "dawn"}', b"\xff", b"null", b"[" * 100_000, *bad):
        with pytest.raises(StateError):
            session.restore(state)
    session.reset()
    with pytest.raises(InputError):
        session.step([Inputs()] * 2)
    for wrong in ({"image": "dawn"}, {"view": "fourth"}):
        with pytest.raises(ConfigError):
            session.reset(**wrong)
    with pytest.raises(ConfigError):
        world.session("paper")


@pytest.mark.parametrize("wrong", [(16, 16), (95, 160), (96, 10_000), (0, 0), (20, 160)])
def test_impossible_sizes_are_named(wrong):
    with pytest.raises(ConfigError, match="size"):
        PatternWorld(*wrong)
    with pytest.raises(ConfigError, match="length"):
        PatternWorld(96, 160, frames_per_step=0)


def test_yaw_wraps_without_a_seam():
    session = PatternWorld(192, 320).session()
    left, right = (
        session.reset() and session.step(Inputs(yaw_deg=turn))[0].pixels[40:] for turn in (-180, 180)
    )
    np.testing.assert_array_equal(left, right)
    assert math.isclose(read_pattern(session.step(Inputs(yaw_deg=1))[0].pixels).yaw_deg, -179, abs_tol=0.01)
