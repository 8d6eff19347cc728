"""Context parallelism: the losses and gradients of one process, with any mesh, and what it cannot do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from base_training_cases import make_store, tiny_world
from context_run import CASES, gradients_of
from sharded_run import WEIGHTS, launch, run, train
from test_base_training import ALONE, config, losses
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from worldwire.errors import ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.attention import KeyValue
from worldwire_runtime.world import CONFIG_FILE, preset_folder
from worldwire_training.base_config import BaseConfig
from worldwire_training.base_model import BaseModel
from worldwire_training.base_run import train_base
from worldwire_training.base_training import BaseTrainer
from worldwire_training.clip_sampler import Shape
from worldwire_training.common import Ranks
from worldwire_training.context_parallel import Strip, neighbours, share_clips, strip_of
from worldwire_training.memory_estimate import estimate, fake_batch
from worldwire_training.speed_probe import trainable

SCRIPT = Path(__file__).parent / "context_run.py"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """What two processes with one clip found, by case."""
    output = tmp_path_factory.mktemp("context") / "found.pt"
    launch(SCRIPT, 2, str(output))
    return torch.load(output)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_find_the_losses_and_gradients_of_one(name: str, shared: dict):
    alone = gradients_of(CASES[name], ALONE)
    assert alone.keys() == shared[name].keys()
    torch.testing.assert_close(shared[name]["losses"], alone["losses"], rtol=1e-5, atol=1e-6)
    largest = max(alone[part].abs().max() for part in alone if part.startswith("dit."))
    for part, expected in alone.items():
        torch.testing.assert_close(shared[name][part], expected, rtol=1e-4, atol=float(1e-5 * largest))


def test_a_run_goes_on_with_another_mesh(tmp_path: Path):
    """Two pairs of processes with a clip each, twice a step; then one process alone: as without any of it."""
    plain, changing = tmp_path / "plain", tmp_path / "changing"
    weights = train(plain, ALONE, 3, parallel="replicate", recompute=False, microbatches=4)
    run(changing, 4, 2, "context_parallel=2", "microbatches=4")
    run(changing, 1, 3, "resume", "microbatches=4")
    assert losses(changing) == pytest.approx(losses(plain), rel=1e-4)
    assert len(losses(plain)) == 3
    assert float((changing / WEIGHTS).read_text()) == pytest.approx(weights, rel=1e-5)


def test_neighbours_share_clips_and_groups_do_not():
    ranks = [Ranks(rank, 6, torch.device("cpu")).sharing_clips(3) for rank in range(6)]
    assert [rank.clip_rank for rank in ranks] == [0, 0, 0, 1, 1, 1]
    assert {rank.clip_ranks for rank in ranks} == {2}
    with pytest.raises(ConfigError, match=r"do not divide into groups .* got: 6 processes"):
        Ranks(0, 6, torch.device("cpu")).sharing_clips(4)


def test_strips_are_rows_where_these_divide():
    world = tiny_world()  # 1 x 2 tokens, 2 heads
    cells = torch.arange(8.0).view(2, 4)
    assert torch.equal(strip_of(world, 2, 1).cut(cells), cells[:, 2:])
    tall = replace(world, height=64)
    assert strip_of(tall, 2) == Strip(-2, 0, 2)
    assert strip_of(tall, 2).size(tall.latent_hw) == (2, 4)
    assert strip_of(world, 2).size(world.latent_hw) == (2, 2)


def test_what_cannot_be_split_is_refused_before_long_work(tmp_path: Path):
    world, wide = tiny_world(), replace(tiny_world(), width=96)
    with pytest.raises(ConfigError, match=r"do not divide into context_parallel strips.* got: .* = 4"):
        strip_of(world, 4)
    with pytest.raises(ConfigError, match="heads do not divide"):
        strip_of(wide, 3)
    with pytest.raises(ConfigError, match="rolling attention"):
        strip_of(replace(world, dit=replace(world.dit, attention="rolling")), 2)
    for wrong in ({"parallel": "replicate"}, {"compile": "blocks"}):
        with pytest.raises(ConfigError, match="goes with sharding"):
            config(tmp_path, **{"parallel": "shard", "context_parallel": 2} | wrong)
    with pytest.raises(ConfigError, match="no number of processes"):
        config(tmp_path, context_parallel=0)
    settings = config(tmp_path, parallel="shard", context_parallel=2)
    with pytest.raises(ConfigError, match="do not divide into groups"):
        train_base(settings)  # before the VAE is looked for, which is not there
    with pytest.raises(ConfigError, match="do not divide into groups"):
        BaseTrainer(settings, world, make_store(), ALONE)


@pytest.fixture
def fourth_of_eight() -> Iterator[Ranks]:
    """Rank 3 of eight processes that are not there; four share a clip."""
    dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=8)
    yield Ranks(3, 8, torch.device("cpu")).sharing_clips(4)
    dist.destroy_process_group()


def released_world() -> WorldConfig:
    """`5b-720p` with two of its blocks and a text encoder that can be trained."""
    world = trainable(WorldConfig.from_file(preset_folder("5b-720p") / CONFIG_FILE))
    action = replace(world.dit.action_config, blocks=(0,))
    return replace(world, dit=replace(world.dit, num_layers=2, action_config=action))


def test_clips_of_the_released_size_go_through_on_fake_tensors(fourth_of_eight: Ranks):
    world, seen, fake = released_world(), [], FakeTensorMode()
    with fake:
        model = BaseModel.build(world)

    def attend(query: torch.Tensor, keys: KeyValue, _context: object) -> torch.Tensor:
        seen.append((tuple(query.shape), tuple(keys.key.shape)))
        return query + keys.key + keys.value

    for block in model.dit.blocks:
        block.self_attn.attend = attend
    share_clips(model, world, neighbours(fourth_of_eight))
    with fake:
        batch = fake_batch(world, Shape(5, 4, 10), 1, torch.float32, world.latent_hw)
        context, new = batch.latents.tensor_split([9], dim=2)
        velocity = model(batch, context, new, torch.zeros(1))
        velocity.mean().backward()
    assert velocity.shape == (1, 48, 10, 44, 80)
    every_token_of_six_heads = (1, 6, 19 * 880, 128)
    assert seen == 2 * [(every_token_of_six_heads, every_token_of_six_heads)]
    assert model.dit.blocks[0].self_attn.q.weight.grad.shape == (3072, 3072)


def test_the_estimate_knows_strips(tmp_path: Path):
    shapes = (Shape(5, 4, 10),)
    settings: BaseConfig = config(tmp_path, shapes=shapes, parallel="shard", recompute=True)
    world = released_world()
    alone, four = (estimate(replace(settings, context_parallel=count), world, 4) for count in (1, 4))
    assert alone.state == four.state
    assert 3.5 < alone.activations / four.activations < 4.2
