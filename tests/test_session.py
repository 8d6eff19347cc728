"""Sessions of a small random world: determinism, saving, branching, memory, and what the network is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors
from worlds import write_random_world

from worldwire.camera import from_quaternion, make_c2w, rotation_from_yaw_pitch
from worldwire.errors import ConfigError, ImageError, InputError, StateError, WorldwireError
from worldwire.inputs import Inputs
from worldwire.motion import MotionModel, PlayerPose
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.memory import CAPACITY
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.saved_state import read_state
from worldwire_runtime.session import Session
from worldwire_runtime.world import World

FORWARD = Inputs(frozenset({"forward"}))
RIGHT = Inputs(frozenset({"forward"}), yaw_deg=6.0)
LEFT = Inputs(frozenset({"left"}), yaw_deg=-4.0, pitch_deg=1.0)
WALK = [FORWARD, RIGHT, LEFT, FORWARD, RIGHT, LEFT, RIGHT]
HOUR_LATENTS = 3600 * 16 // 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_random_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def world(folder) -> World:
    return load(folder)


@pytest.fixture
def session(world) -> Session:
    session = world.session()
    session.reset()
    return session


def load(folder: Path) -> World:
    return World.load(folder, device="cpu", precision="float32")


def play(session: Session, inputs=WALK) -> np.ndarray:
    """The frames [F, H, W, 3] of one step for each entry."""
    return np.stack([frame.pixels for item in inputs for frame in session.step(item)])


def play_anew(world: World, inputs=WALK, plan=None, **reset) -> np.ndarray:
    """The same of a new session, its first picture before them."""
    session = world.session(plan)
    first = session.reset(**reset)
    return np.stack([first.pixels, *(frame.pixels for item in inputs for frame in session.step(item))])


def camera(x_m: float = 0.0, z_m: float = 0.0, yaw_deg: float = 0.0) -> np.ndarray:
    return make_c2w(rotation_from_yaw_pitch(yaw_deg, 0.0), (x_m, 0.0, z_m))


@contextmanager
def told(world: World, monkeypatch) -> Iterator[list[tuple[ClipConditions, torch.Tensor]]]:
    """What the network is told in every clip meanwhile: conditions and context."""
    clips, generate = [], world.denoiser.generate

    def listen(conditions, context, noise, steps):
        clips.append((conditions, context))
        return generate(conditions, context, noise, steps)

    with monkeypatch.context() as patch:
        patch.setattr(world.denoiser, "generate", listen)
        yield clips


# ------------------------------------------------------------------ the same and not the same


def test_the_same_seed_and_inputs_give_the_same_frames(world):
    first, second = (play_anew(world, seed=3) for _ in range(2))
    assert first.shape == (1 + 8 * len(WALK), 32, 64, 3)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"prompt": "a village"}, {"image": "hall", "prompt": "a village by day", "view": "first"}],
    ids=lambda changed: next(iter(changed)),
)
def test_seed_prompt_and_seed_image_change_the_pictures(world, changed):
    plain = {"image": "meadow", "prompt": "a village by day", "seed": 0}
    before, after = (play_anew(world, WALK[:1], **given) for given in (plain, plain | changed))
    assert (before[1:] != after[1:]).any()


def test_a_prompt_alone_makes_its_own_first_picture(world):
    pictures = [play_anew(world, [], prompt=prompt, seed=5) for prompt in ("a village", "a village by day")]
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0] != play_anew(world, [], image="meadow")).any()


@pytest.mark.parametrize("plan", ["low-latency", "paper"])
def test_keys_look_and_poses_change_the_pictures(world, plan):
    walks = [
        Inputs(),
        FORWARD,
        Inputs(frozenset({"left"})),
        Inputs(yaw_deg=3.0),
        Inputs(pitch_deg=1.0),
        Inputs(c2w=camera(z_m=1.0)),
        Inputs(c2w=camera(yaw_deg=30.0)),
    ]
    shown = [play_anew(world, [walk], plan).tobytes() for walk in walks]
    assert len(set(shown)) == len(walks)


def test_a_joint_attention_world_plays_too(world, tmp_path):
    joint = load(write_random_world(tmp_path / "joint", attention="joint"))
    session = joint.session()
    session.reset()
    frames = [frame for item in WALK for frame in session.step(item)]
    assert frames[-1].memory_latents
    np.testing.assert_array_equal([frame.pixels for frame in frames], play_anew(joint)[1:])
    assert (play_anew(joint) != play_anew(world)).any()


# ------------------------------------------------------------------ clips and poses


@pytest.mark.parametrize(("plan", "steps"), [("low-latency", [8, 8, 8]), ("paper", [56, 40, 40])])
def test_the_first_clip_and_the_later_ones_have_their_own_lengths(world, plan, steps):
    session = world.session(plan)
    assert session.frames_per_step == steps[0]
    assert session.reset().index == 0
    index = 0
    for length in steps[:2]:
        assert session.frames_per_step == length
        frames = session.step(FORWARD)
        assert [frame.index for frame in frames] == list(range(index + 1, index + 1 + length))
        index += length
    assert session.frames_per_step == steps[2]


def test_frames_report_where_the_motion_model_goes(session):
    poses, player, motion = [], PlayerPose(), MotionModel()
    for item in WALK:
        for frame in session.step(item):
            player = motion.advance(player, item)
            poses.append((frame.c2w, player.c2w))
    np.testing.assert_allclose(*zip(*poses, strict=True), atol=1e-12)


def test_the_first_camera_is_the_identity_in_third_person_too(world):
    session = world.session()
    np.testing.assert_array_equal(session.reset(view="third").c2w, np.eye(4))
    turned = session.step(Inputs(yaw_deg=90 / 8))[-1].c2w
    boom_m = MotionModel().boom_m[2]  # the camera goes round the player
    np.testing.assert_allclose(turned[:3, 3], (boom_m, 0, -boom_m), atol=1e-9)


def test_a_pose_wins_over_keys_and_is_reported(session):
    target = camera(x_m=0.5, z_m=1.5, yaw_deg=20.0)
    frames = session.step(Inputs(frozenset({"back"}), yaw_deg=-9.0, c2w=target))
    for frame in frames:
        np.testing.assert_array_equal(frame.c2w, target)
    walked = session.step(FORWARD)[0].c2w  # keys go on from the pose
    heading = target[:3, 2]
    np.testing.assert_allclose(walked[:3, 3] - target[:3, 3], 0.125 * heading, atol=1e-9)


@pytest.mark.parametrize(
    "pose",
    [
        lambda: camera(x_m=float("nan")),
        lambda: np.diag([0.0, 0.0, 0.0, 1.0]),
        lambda: camera()[:3],
        lambda: from_quaternion((0, 0, 0), (0, 0, 0, 0)),
        lambda: from_quaternion((0, 0, 0), (0, 0, 0, float("nan"))),
    ],
    ids=["nan", "zero_rotation", "three_rows", "zero_quaternion", "nan_quaternion"],
)
def test_unusable_poses_are_refused_before_anything_happens(session, pose):
    with pytest.raises(InputError):
        session.step(Inputs(c2w=pose()))
    assert session.step(FORWARD)[0].index == 1


def test_a_list_of_inputs_must_have_the_length_of_the_step(session):
    with pytest.raises(InputError, match="8 Inputs"):
        session.step([FORWARD] * 7)
    assert len(session.step([FORWARD, LEFT] * 4)) == 8


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize(("plan", "steps"), [("low-latency", 12), ("paper", 4)])
def test_slots_are_all_or_none_all_different_and_older_than_the_past(world, plan, steps):
    session, facts = world.session(plan), world.config.plan(plan)
    session.reset()
    used = []
    for step in range(steps):
        frames = session.step(WALK[step % len(WALK)])
        (slots,) = {frame.memory_latents for frame in frames}
        held = (frames[0].index - 1) // 4 + 1
        if slots:
            assert len(set(slots)) == len(slots) == facts.memory
            assert min(slots) >= 0
            assert max(slots) < held - facts.past
        used.append(bool(slots))
    assert used == sorted(used)
    assert used[-1]
    assert not used[0]


def test_without_memory_no_slot_is_filled_and_the_pictures_differ(world):
    session = world.session(memory=False)
    session.reset()
    frames = [frame for item in WALK for frame in session.step(item)]
    assert not any(frame.memory_latents for frame in frames)
    assert (play_anew(world)[1:] != [frame.pixels for frame in frames]).any()


def test_an_hour_of_play_stays_bounded_and_goes_on(session):
    yaws_deg = np.arange(HOUR_LATENTS) * 7.0
    cameras = np.stack([camera(np.sin(yaw / 500), np.cos(yaw / 900), yaw) for yaw in yaws_deg])
    session._memory.add(torch.zeros(HOUR_LATENTS, 4, 2, 4), torch.from_numpy(cameras))
    frames = session.step(FORWARD)
    assert len(frames[0].memory_latents) == 5
    assert len(session._memory) <= CAPACITY
    assert len(session.save()) < 4 * CAPACITY * (4 * 2 * 4 + 2 * 16 + 2)


# ------------------------------------------------------------------ what the network is told


def test_keys_alone_hide_the_cameras_and_the_memory(world, monkeypatch):
    with told(world, monkeypatch) as clips:
        shown = [
            play_anew(world, [Inputs(frozenset({"forward"}), c2w=camera(yaw_deg=yaw))], conditioning="keys")
            for yaw in (0.0, 50.0)
        ]
    np.testing.assert_array_equal(*shown)
    assert not any(conditions.pose_known.any() for conditions, _ in clips)

    session = world.session()
    session.reset(conditioning="keys")
    assert not any(frame.memory_latents for item in WALK for frame in session.step(item))


def test_poses_alone_hide_keys_and_look(world, monkeypatch):
    with told(world, monkeypatch) as clips:
        play_anew(world, [LEFT], conditioning="poses")
        play_anew(world, [Inputs(c2w=camera(z_m=1.0))])  # so does steering by poses alone
    for conditions, _ in clips:
        assert (conditions.keyboard[:, -8:] == -1).all()
        assert (conditions.mouse[:, -8:] == 1).all()
        assert conditions.pose_known.all()


def test_actions_reach_the_latents_that_they_lead_to(world, monkeypatch):
    session = world.session()
    session.reset()
    with told(world, monkeypatch) as clips:
        session.step(
            [Inputs()] * 3 + [Inputs(frozenset({"jump"}), yaw_deg=15.0, pitch_deg=-7.5)] + [Inputs()] * 4
        )
    (conditions, context) = clips[0]
    assert context.shape == (1, 4, 2, 4)
    assert conditions.keyboard.shape == (1, 4 * (3 + 2), 6)
    assert conditions.keyboard.nonzero().tolist() == [[0, 15, 4]]  # frame 4 of 0 .. 8, the last entry is 8's
    assert conditions.mouse[0, 15].tolist() == [-0.5, 1.0]
    assert conditions.mouse.count_nonzero() == 2


# ------------------------------------------------------------------ saving, restoring, branching


@pytest.mark.parametrize(("plan", "steps"), [("low-latency", 6), ("paper", 2)])
def test_restored_and_branched_sessions_go_on_bit_for_bit(world, folder, plan, steps):
    session = world.session(plan)
    session.reset("a village", view="third", seed=9)
    play(session, WALK[:steps])
    state, branch = session.save(), session.branch()
    rest = [LEFT, RIGHT]
    expected = [frame for item in rest for frame in session.step(item)]
    assert expected[0].memory_latents

    elsewhere = load(folder).session(plan)
    elsewhere.restore(state)
    session.restore(state)
    for other in (branch, elsewhere, session):
        got = [frame for item in rest for frame in other.step(item)]
        np.testing.assert_array_equal([f.pixels for f in got], [f.pixels for f in expected])
        np.testing.assert_array_equal([f.c2w for f in got], [f.c2w for f in expected])
        assert [(f.index, f.memory_latents) for f in got] == [(f.index, f.memory_latents) for f in expected]


def test_a_branch_is_independent(session):
    play(session, WALK[:2])
    branch = session.branch()
    branch.step(LEFT)
    branch.close()
    twin = session.branch()
    np.testing.assert_array_equal(play(session, [RIGHT]), play(twin, [RIGHT]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: b"",
        lambda state: b"garbage, and more of it than a header has bytes",
        lambda state: state[: len(state) // 2],
        lambda state: state.replace(b"worldwire-session-1", b"worldwire-session-9"),
        lambda state: state.replace(b"memory.latents", b"memory.tangents"[:14]),
        lambda state: save_tensors({"rng": torch.zeros(3)}),
        lambda state: save_tensors({"rng": torch.zeros(3)}, {"session": json.dumps({"format": "other"})}),
        lambda state: state.replace(b"rng", b"gnr"),
    ],
    ids=["empty", "garbage", "cut", "format", "memory", "no_facts", "other_facts", "no_rng"],
)
def test_any_other_bytes_are_a_state_error_and_change_nothing(session, spoil):
    session.step(FORWARD)
    state, twin = session.save(), session.branch()
    with pytest.raises(StateError):
        session.restore(spoil(state))
    np.testing.assert_array_equal(play(session, [LEFT]), play(twin, [LEFT]))


@pytest.mark.parametrize(
    ("name", "spoil", "expected", "got"),
    [
        ("rng", lambda part: part[:16], "[5056]", "[16]"),
        ("text", lambda part: part[:, :-1], "[1, 8, 16]", "[1, 7, 16]"),
        ("text", lambda part: part[0], "[1, 8, 16]", "[8, 16]"),
        ("actions", lambda part: part[:, :0], "[1, n, 8]", "[1, 0, 8]"),
        ("memory.latents", lambda part: part[..., 1:], "[n, 4, 2, 4]", "[3, 4, 2, 3]"),
        ("memory.c2w", lambda part: part[:, :3], "[n, 4, 4]", "[3, 3, 4]"),
        ("memory.indices", lambda part: part[None], "[n]", "[1, 3]"),
        ("decoder.00", lambda part: part[:1], "[2, 1, 2, 4, 4]", "[1, 1, 2, 4, 4]"),
    ],
)
def test_a_tensor_of_another_shape_is_named_and_changes_nothing(session, name, spoil, expected, got):
    session.step(FORWARD)
    state, twin = session.save(), session.branch()
    tensors, facts = read_state(state)
    tensors[name] = spoil(tensors[name]).contiguous()
    with pytest.raises(StateError) as caught:
        session.restore(save_tensors(tensors, {"session": json.dumps(facts)}))
    assert f"expected: {name} {expected}; got: {name} {got}; to do: restore it" in str(caught.value)
    np.testing.assert_array_equal(play(session, [LEFT]), play(twin, [LEFT]))


def test_tensors_that_are_missing_or_too_many_are_named(session):
    tensors, facts = read_state(session.save())
    few = {name: part for name, part in tensors.items() if not name.startswith("decoder.")}
    several = (
        r"decoder.00 \[.*decoder.02 \[.*\] and \d+ more; got: no decoder.00, no decoder.01, no decoder.02"
    )
    for changed, said in (
        (few, several),
        (tensors | {"decoder.99": torch.zeros(1)}, r"expected: no decoder.99; got: decoder.99 \[1\]"),
    ):
        with pytest.raises(StateError, match=said):
            session.restore(save_tensors(changed, {"session": json.dumps(facts)}))


def test_states_of_other_plans_and_worlds_are_refused(world, session, tmp_path):
    state = session.save()
    with pytest.raises(StateError, match="another session"):
        world.session("paper").restore(state)
    with pytest.raises(StateError, match="another session"):
        world.session(ClipPlan(3, 4, 2, 4)).restore(state)
    folder = write_random_world(tmp_path / "other")
    config = (folder / "config.json").read_text().replace('"name": "random"', '"name": "other"')
    (folder / "config.json").write_text(config)
    with pytest.raises(StateError, match="other"):
        load(folder).session().restore(state)


# ------------------------------------------------------------------ the wrong time


@pytest.mark.parametrize("call", [lambda s: s.step(FORWARD), lambda s: s.save(), lambda s: s.branch()])
def test_nothing_goes_before_a_reset_or_after_a_close(world, call):
    session = world.session()
    with pytest.raises(StateError, match="reset"):
        call(session)
    session.reset()
    session.close()
    session.close()
    with pytest.raises(StateError, match="reset"):
        call(session)


def test_a_stream_left_before_its_end_needs_a_reset(session):
    fresh = play(session.branch(), [FORWARD])
    stream = session.stream(FORWARD)
    next(stream)
    for call in (lambda: session.step(FORWARD), session.save):
        with pytest.raises(StateError, match="stream"):
            call()
    session.reset()
    np.testing.assert_array_equal(play(session, [FORWARD]), fresh)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"view": "bird"}, ConfigError),
        ({"conditioning": "dreams"}, ConfigError),
        ({"seed": -1}, ConfigError),
        ({"seed": 1.5}, ConfigError),
        ({"image": "atlantis"}, ConfigError),
        ({"image": np.zeros((16, 16, 3), np.uint8)}, ImageError),
        ({"image": np.zeros((32, 64, 3), np.float32)}, ImageError),
        ({"image": 7}, ImageError),
    ],
    ids=["view", "conditioning", "negative_seed", "broken_seed", "name", "size", "type", "no_image"],
)
def test_a_refused_reset_leaves_the_walk_as_it_was(session, wrong, error):
    session.step(FORWARD)
    twin = session.branch()
    with pytest.raises(error) as caught:
        session.reset(**({"image": "hall"} | wrong))
    assert isinstance(caught.value, WorldwireError)
    assert caught.value.expected
    np.testing.assert_array_equal(play(session, [LEFT]), play(twin, [LEFT]))


def test_stages_are_timed_in_the_last_frame_of_a_step(session):
    *others, last = session.step(FORWARD)
    assert {"camera", "memory", "denoise", "decode"} == last.timings_ms.keys()
    assert not any(frame.timings_ms for frame in others)
