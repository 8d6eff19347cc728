"""The memory of a session: what it recalls, what it keeps, and that it can be saved and branched."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from worldwire.camera import Intrinsics, make_c2w, rotation_from_yaw_pitch
from worldwire.errors import ConfigError, StateError
from worldwire_runtime.latent_store import LatentStore
from worldwire_runtime.memory import RECENCY, RECENT, SPACING, Memory, select_memory

CAMERA = Intrinsics.from_fov(192, 320, 80)
SHAPE = (2, 3, 4)


def walk(turns_deg, step_m=0.25):
    """Cameras [n, 4, 4] of a walk that turns by `turns_deg` before each step."""
    position, yaw, cameras = np.zeros(3), 0.0, []
    for turn in turns_deg:
        yaw += turn
        position = position + step_m * rotation_from_yaw_pitch(yaw, 0)[:, 2]
        cameras.append(make_c2w(rotation_from_yaw_pitch(yaw, 0), position))
    return torch.from_numpy(np.stack(cameras))


def filled(cameras, **options):
    """A memory whose latent k is full of k."""
    memory = Memory(CAMERA, dtype=torch.float32, **options)
    memory.add(torch.arange(len(cameras)).view(-1, 1, 1, 1).expand(-1, *SHAPE).float(), cameras)
    return memory


# ---------------------------------------------------------------------- the rule


shares = st.tuples(st.integers(1, 4), st.integers(0, 20)).flatmap(
    lambda size: arrays(np.float32, size, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
)


@given(shares, st.integers(0, 8))
def test_slots_hold_different_overlapping_candidates_and_as_many_as_there_are(overlaps, slots):
    chosen = select_memory(torch.from_numpy(overlaps), slots)
    assert len(set(chosen)) == len(chosen)
    assert all(overlaps[:, column].max() > 0 for column in chosen)
    assert len(chosen) == min(slots, int((overlaps > 0).any(axis=0).sum()))


def select_slowly(overlaps, slots, indices):
    """The rule, word by word, over all candidates."""
    count = overlaps.shape[1]
    place, scores = np.asarray(indices), overlaps + RECENCY / max(1, count) * np.arange(count)
    free, apart, chosen = overlaps > 0, np.ones(count, dtype=bool), []
    while len(chosen) < slots and free.any():
        for query in range(len(overlaps)):
            open_here = free[query] & apart if (free[query] & apart).any() else free[query]
            if len(chosen) == slots or not open_here.any():
                continue
            best = int(np.where(open_here, scores[query], -1.0).argmax())
            free[:, best] = False
            apart &= np.abs(place - place[best]) > SPACING
            chosen.append(best)
    return chosen


@given(shares, st.integers(0, 8), st.data())
def test_the_quick_choice_is_that_of_the_rule(overlaps, slots, data):
    gaps = data.draw(arrays(np.int64, overlaps.shape[1], elements=st.integers(1, 3)))
    indices = np.cumsum(gaps).tolist()
    chosen = select_memory(torch.from_numpy(overlaps), slots, indices)
    assert chosen == select_slowly(overlaps.astype(np.float64), slots, indices)


@given(shares)
def test_the_first_query_gets_its_best(overlaps):
    chosen = select_memory(torch.from_numpy(overlaps), 3)
    if overlaps.shape[1] and overlaps[0].max() > 0:
        assert overlaps[0, chosen[0]] == overlaps[0].max()


def test_queries_take_turns_and_the_newest_of_equals_wins():
    overlaps = torch.tensor([[0.9, 0.8, 0.0, 0.0], [0.9, 0.0, 0.5, 0.5]])
    assert select_memory(overlaps, 4, indices=[0, 10, 20, 30]) == [0, 3, 1, 2]


def test_neighbours_of_a_chosen_latent_come_last():
    overlaps = torch.tensor([[0.9, 1.0, 0.9, 0.9, 0.2, 0.0]])
    assert select_memory(overlaps, 6) == [1, 4, 3, 2, 0]


# ---------------------------------------------------------------------- recall


def test_a_turn_around_recalls_the_views_of_before_and_not_the_nearest_in_time():
    there = walk([0.0] * 20)
    away = walk([90.0] + [0.0] * 40)
    memory = filled(torch.cat([there, away]))
    recalled = memory.select(there[10:11], slots=5, before=55)
    assert recalled[0] == 10
    assert len(set(recalled)) == 5
    assert set(recalled) <= set(range(20))


@given(st.lists(st.floats(-40, 40), min_size=12, max_size=30), st.integers(0, 30), st.integers(1, 6))
def test_the_past_window_is_never_recalled_and_slots_differ(turns, before, slots):
    cameras = walk(turns)
    recalled = filled(cameras).select(cameras[-2:], slots, before)
    assert all(0 <= index < before for index in recalled)
    assert len(set(recalled)) == len(recalled) <= slots


def test_nothing_that_overlaps_nothing_recalled():
    cameras = walk([0.0] * 10)
    elsewhere = torch.from_numpy(make_c2w(np.eye(3), (500, 0, 0)))[None]
    memory = filled(cameras)
    assert memory.select(elsewhere, 5, before=10) == []
    assert memory.select(cameras[:1], 5, before=0) == []
    assert Memory(CAMERA).select(cameras[:1], 5, before=3) == []


def test_the_official_selection_repeats_itself_and_pins_latent_one():
    cameras = walk([1.5 * 4] * 34, step_m=0.5)
    memory = filled(cameras, selection="official")
    recalled = memory.select(cameras[[33, 31, 29, 27, 25]], 5, before=20)
    assert len(set(recalled[:4])) < 4
    assert recalled[4] == 1
    assert 0 not in recalled
    assert len(set(filled(cameras).select(cameras[[33, 31, 29, 27, 25]], 5, before=20))) == 5


# ---------------------------------------------------------------------- keeping


def test_latents_and_cameras_come_back_by_index():
    cameras = walk([5.0] * 30)
    memory = filled(cameras)
    assert memory.latents([7, 3])[:, 0, 0, 0].tolist() == [7, 3]
    torch.testing.assert_close(memory.c2w([7, 3]), cameras[[7, 3]], atol=0, rtol=0)
    assert memory.latents([]).shape == (0, *SHAPE)
    assert memory.newest(4) == [26, 27, 28, 29]
    assert 29 in memory
    assert 30 not in memory
    with pytest.raises(StateError, match="30"):
        memory.latents([3, 30])


def test_a_long_walk_is_bounded_and_keeps_the_start_the_present_and_what_differs():
    rng = np.random.default_rng(0)
    still, busy = [0.0] * 600, rng.uniform(-40, 40, 200).tolist()
    cameras = torch.cat([walk(still, step_m=0.0), walk(busy, step_m=0.5), walk(still, step_m=0.0)])
    memory = filled(cameras, capacity=512)
    held = memory.state()["indices"]
    assert len(memory) <= 512
    assert memory.next_index == len(cameras)
    assert 0 in memory
    assert memory.newest(RECENT) == list(range(len(cameras) - RECENT, len(cameras)))
    kept_busy = ((held >= 600) & (held < 800)).sum().item() / 200
    kept_still = (held < 600).sum().item() / 600
    assert kept_busy > 0.9
    assert kept_still < 0.5
    assert memory.latents(held.tolist())[:, 0, 0, 0].tolist() == held.tolist()


def test_adding_piece_by_piece_is_the_same_as_at_once():
    cameras = walk(np.random.default_rng(1).uniform(-30, 30, 700))
    once, pieces = filled(cameras, capacity=256), Memory(CAMERA, dtype=torch.float32, capacity=256)
    for start in range(0, 700, RECENT):
        rows = torch.arange(start, min(700, start + RECENT))
        pieces.add(rows.view(-1, 1, 1, 1).expand(-1, *SHAPE).float(), cameras[rows], rows.tolist())
    assert_same(once, pieces)


def test_storage_is_the_stated_size():
    memory = Memory(CAMERA)
    memory.add(torch.zeros(4, 48, 12, 20), walk([0.0] * 4))
    state = memory.state()
    assert state["latents"].nbytes / 4 == 48 * 12 * 20 * 2


def test_saved_and_branched_memories_continue_alike_and_apart():
    cameras = walk([7.0] * 60)
    memory = filled(cameras[:50])
    restored, twin = Memory(CAMERA, dtype=torch.float32), memory.copy()
    restored.load_state(memory.state())
    for each in (memory, restored, twin):
        each.add(torch.full((1, *SHAPE), 50.0), cameras[50:51])
    assert_same(memory, restored)
    assert_same(memory, twin)
    assert twin.select(cameras[:2], 5, 40) == memory.select(cameras[:2], 5, 40)
    twin.add(torch.zeros(1, *SHAPE), cameras[51:52])
    assert (len(memory), len(twin)) == (51, 52)


def assert_same(first, second):
    ours, theirs = first.state(), second.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_empty_memory_can_be_saved():
    memory = filled(walk([0.0] * 3))
    memory.load_state(Memory(CAMERA).state())
    assert len(memory) == memory.next_index == 0


def test_inference_mode_may_come_and_go():
    memory, cameras = Memory(CAMERA), walk([0.0] * 80)
    with torch.inference_mode():
        memory.add(torch.zeros(2, *SHAPE), cameras[:2])
    memory.add(torch.zeros(70, *SHAPE), cameras[2:72])
    assert len(memory.copy()) == 72


@pytest.mark.parametrize(
    ("latents", "cameras", "indices"),
    [
        (torch.zeros(2, *SHAPE), torch.eye(4).expand(1, 4, 4), None),
        (torch.zeros(1, 9, 9, 9), torch.eye(4).expand(1, 4, 4), None),
        (torch.zeros(2, *SHAPE), torch.eye(4).expand(2, 4, 4), [2, 3]),
        (torch.zeros(2, *SHAPE), torch.eye(4).expand(2, 4, 4), [4, 4]),
        (torch.zeros(2, *SHAPE), torch.eye(4).expand(2, 4, 4), [4]),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(latents, cameras, indices):
    memory = filled(walk([0.0] * 3))
    with pytest.raises(StateError, match="expected"):
        memory.add(latents, cameras, indices)
    assert len(memory) == 3


def test_wrong_states_and_settings_are_named():
    with pytest.raises(StateError, match="indices"):
        Memory(CAMERA).load_state({"latents": torch.zeros(1)})
    with pytest.raises(StateError, match="larger"):
        Memory(CAMERA, capacity=256).load_state(filled(walk([0.0] * 300)).state())
    with pytest.raises(ConfigError, match="official"):
        Memory(CAMERA, selection="newest")
    with pytest.raises(ConfigError, match="at least"):
        Memory(CAMERA, capacity=3)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_latents_in_host_memory_come_back_the_same(counts, random):
    device = torch.device("cpu")
    whole = LatentStore(400, device, torch.float32)
    tiered = LatentStore(400, device, torch.float32, resident=16)
    for count in counts:
        if len(whole) + count > 400:
            kept = sorted(random.sample(range(len(whole)), len(whole) // 2))
            whole.keep(kept)
            tiered.keep(kept)
        rows = torch.rand(count, 2)
        whole.append(rows)
        tiered.append(rows)
        wanted = random.choices(range(len(whole)), k=9)
        assert torch.equal(tiered.take(wanted), whole.take(wanted))
        assert torch.equal(tiered.clone().all(), whole.all())
    assert tiered._newest.shape[0] == 16


def test_a_memory_with_latents_on_the_host_recalls_alike():
    cameras = walk([0] * 60 + [6] * 60 + [0] * 80)
    plain, tiered = filled(cameras), filled(cameras, resident=64)
    chosen = plain.select(cameras[-1:], 5, 190)
    assert tiered.select(cameras[-1:], 5, 190) == chosen
    assert torch.equal(tiered.latents([*chosen, 199]), plain.latents([*chosen, 199]))
    assert all(torch.equal(value, plain.state()[name]) for name, value in tiered.state().items())
    with pytest.raises(ConfigError, match="stay on the device"):
        Memory(CAMERA, resident=3)


def test_held_latents_stay_until_another_shows_clearly_more() -> None:
    overlaps = torch.tensor([[0.50, 0.0, 0.0, 0.55, 0.0, 0.0, 0.75]])
    assert select_memory(overlaps, 1) == [6]
    assert select_memory(overlaps[:, :6], 1) == [3]
    assert select_memory(overlaps[:, :6], 1, held=[0]) == [0]  # 0.05 better is not enough
    assert select_memory(overlaps, 1, held=[0]) == [6]
    numbers = [10, 11, 12, 20, 21, 22, 30]
    assert select_memory(overlaps[:, :6], 1, numbers, held=[10, 99]) == [0]
    assert select_memory(overlaps[:, :6], 1, numbers, held=[9]) == [3]  # thinned out
