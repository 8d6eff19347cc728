"""What a training run of the base model is told (`configs/base_tiny.toml` explains each choice)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from worldwire.errors import ConfigError
from worldwire.motion import VIEWS
from worldwire_runtime.quantize.config import Quantization
from worldwire_training.base_model import NoiseConfig
from worldwire_training.clip_sampler import DropRates, Shape
from worldwire_training.common import config_from_dict

Compile = Literal["none", "fused", "blocks"]
Optimizer = Literal["adamw", "muon"]
Parallel = Literal["replicate", "shard"]
Config = TypeVar("Config")


@dataclass(frozen=True)
class DataConfig:
    """Where episodes are, and how they become latents.

    episodes, held_out: folders of bulk episodes; the held-out ones are for validation only. vae: folder of
    the trained VAE. encode_batch: episodes encoded together. most_episodes: 0 takes all. latents_cache: a
    folder that keeps what was encoded for later processes of the run ("": none). view: takes the training
    episodes of one view alone ("": all).
    """

    episodes: str
    held_out: str
    vae: str
    encode_batch: int = 8
    most_episodes: int = 0
    latents_cache: str = ""
    view: str = ""

    def __post_init__(self) -> None:
        if self.view and self.view not in VIEWS:
            raise ConfigError("unknown view", expected=" or ".join(VIEWS), got=repr(self.view))


@dataclass(frozen=True)
class OptimizerConfig:
    """Linear warm-up, a constant rate, linear decay over the last `decay_share` of the run, gradient norm
    clipping, and the average that ships.

    kind: "muon" for the matrices of the transformer's blocks, with AdamW at `adam_share` of its rate for the
    rest, or "adamw" for everything. beta2, weight_decay: AdamW's (beta1 is 0.9).
    """

    kind: Optimizer = "adamw"
    peak_rate: float = 1e-3
    final_rate: float = 1e-5
    adam_share: float = 0.5
    warmup_steps: int = 200
    decay_share: float = 0.3
    beta2: float = 0.95
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        if self.kind not in get_args(Optimizer):
            raise ConfigError(
                "unknown optimizer", expected=" or ".join(get_args(Optimizer)), got=repr(self.kind)
            )
        if not 0 <= self.decay_share <= 1:
            raise ConfigError(
                "optimizer.decay_share is out of range", expected="0 to 1", got=str(self.decay_share)
            )


@dataclass(frozen=True)
class OwnContext:
    """Contexts that the model makes itself, as sessions will: the remedy for worlds that melt.

    share: of the steps with a fully grown past, or with that of a session's second clip. segments: up to so
    many clips are generated (by the sampler, without gradients) before the one that is trained on its truth.
    most_latents: but no more than so many generated latents, so that long clips do not take all the time. A
    second clip has one before it.
    """

    share: float = 0.0
    segments: int = 2
    most_latents: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.segments < 1 or self.most_latents < 1:
            raise ConfigError(
                "own_context is out of range",
                expected="share 0 to 1, segments and most_latents above 0",
                got=str(self),
            )


@dataclass(frozen=True)
class ValidationConfig:
    """Pictures and numbers from held-out episodes while a run goes on.

    every_minutes: 0 validates only at the end. scenes: rolled out from their first frame for `latents`
    latents. clips: windows for the loss at each noise level.
    """

    every_minutes: float = 2.0
    scenes: int = 8
    latents: int = 21
    clips: int = 64


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run of a transformer is told. `minutes` counts training alone (no encoding, no compilation);
    `steps` above 0 replaces it.

    A process saves and ends, for a later one to resume, at `pause_at` of the run (a share) or after
    `minutes_per_call` of its own (encoding and compilation included; 0: no limit). `minutes` may differ on a
    resume.

    latents_per_step: context and new latents of all clips in one microbatch. microbatches: of one step,
    shared out among the processes, which must divide them (0: one for each process); with a number given, a
    run goes on alike with more or fewer processes. compile: "fused" compiles the elementwise work once for
    all clip shapes, "blocks" whole blocks for each of them; compile_cache: a file that keeps what was
    compiled for the next run on such a machine ("": none). copy_to: a second folder that gets the world,
    picture strips and curves, but no checkpoint, at every validation ("": none).
    """

    output: str
    copy_to: str = ""
    data: DataConfig
    shapes: tuple[Shape, ...]
    minutes: float = 8.0
    pause_at: float = 1.0
    minutes_per_call: float = 0.0
    steps: int = 0
    latents_per_step: int = 2048
    microbatches: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    compile: Compile = "none"
    compile_cache: str = ""
    seed: int = 0
    log_every: int = 20
    checkpoint_minutes: float = 2.0
    random_memory: float = 0.2
    drops: DropRates = field(default_factory=DropRates)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", read_shapes(self.shapes, "[[shapes]]"))
        if self.compile not in get_args(Compile):
            raise ConfigError(
                "unknown way to compile", expected=" or ".join(get_args(Compile)), got=repr(self.compile)
            )
        if self.minutes_per_call and self.steps:
            raise ConfigError(
                "minutes_per_call has no meaning for a run of so many steps",
                expected="minutes_per_call = 0 with steps above 0",
                remedy="use pause_at, or minutes instead of steps",
            )

    @property
    def fixed(self) -> tuple[str, ...]:
        """The settings that may not differ on a resume, by their names."""
        return ("shapes", "drops", "seed", "microbatches")

    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to, as plain data: the values of `fixed`."""
        plain: dict[str, Any] = {}
        for name in self.fixed:
            value = reduce(getattr, name.split("."), self)
            plain[name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        return json.loads(json.dumps(plain, default=asdict))


@dataclass(frozen=True, kw_only=True)
class BaseConfig(RunConfig):
    """A run of the base model. init_from: folder of a world whose weights it begins with ("": random).

    parallel: every process has the whole network ("replicate"), or its share of it ("shard", FSDP2).
    context_parallel: so many neighbouring processes have a clip together (`context_parallel.py`), for clips
    too large for one. recompute: compute activations twice, for a third more time and far less memory.
    quantization: train the linears of this layer set as they will be in 8 bits (`quant_aware.py`).
    """

    world: dict[str, Any]
    init_from: str = ""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    own_context: OwnContext = field(default_factory=OwnContext)
    parallel: Parallel = "replicate"
    context_parallel: int = 1
    recompute: bool = False
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parallel not in get_args(Parallel):
            raise ConfigError(
                "unknown kind of parallel training",
                expected=" or ".join(get_args(Parallel)),
                got=repr(self.parallel),
            )
        if self.parallel == "shard" and (self.optimizer.kind != "adamw" or self.own_context.share):
            raise ConfigError(
                "a sharded run cannot do everything",
                expected='optimizer.kind = "adamw" and own_context.share = 0 with parallel = "shard"',
                got=f"{self.optimizer.kind}, {self.own_context.share}",
            )
        self._check_context_parallel()

    def _check_context_parallel(self) -> None:
        if self.context_parallel < 1:
            raise ConfigError(
                "context_parallel is no number of processes",
                expected="1 (each has clips of its own) or more",
                got=str(self.context_parallel),
            )
        if self.context_parallel > 1 and (self.parallel != "shard" or self.compile == "blocks"):
            raise ConfigError(
                "context parallelism goes with sharding, and not with compiled blocks",
                expected='parallel = "shard" and compile = "fused" or "none" with context_parallel above 1',
                got=f"{self.parallel}, {self.compile}",
            )

    @property
    def fixed(self) -> tuple[str, ...]:
        return (*super().fixed, "world", "noise", "own_context", "optimizer.kind", "quantization")


def read_shapes(tables: Sequence[Any], where: str) -> tuple[Shape, ...]:
    """Clip shapes from the tables of a file."""
    return tuple(
        config_from_dict(table, Shape, where) if isinstance(table, Mapping) else table for table in tables
    )


def read_config(path: Path, kind: type[Config], assignments: Sequence[str] = ()) -> Config:
    """A TOML file as the dataclass `kind`, with `key.in.table=value` assignments on top.

    A file may say `extends = "other.toml"`: then it holds only what differs from that file beside it. Values
    are TOML; what is not (a bare path) counts as a string. Raises ConfigError for an unreadable file, an
    assignment without '=', and unknown keys.
    """
    return config_of(_read(path), kind, str(path), assignments)


def config_of(
    values: Mapping[str, Any], kind: type[Config], where: str, assignments: Sequence[str] = ()
) -> Config:
    """Tables as the dataclass `kind`, with assignments on top as in `read_config`; `where` is for errors."""
    changed = deepcopy(dict(values))
    for assignment in assignments:
        _merge(changed, _parse(assignment))
    return config_from_dict(changed, kind, where)


def _read(path: Path) -> dict[str, Any]:
    """The tables of a file on top of those of the file that it extends."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"the configuration {path} cannot be read: {error}", expected="a TOML file"
        ) from error
    other = values.pop("extends", None)
    if other is None:
        return values
    whole = _read(path.parent / other)
    _merge(whole, values)
    return whole


def _parse(assignment: str) -> dict[str, Any]:
    key, equals, value = assignment.partition("=")
    if not equals or not key.strip():
        raise ConfigError("an override is no assignment", expected="key=value", got=repr(assignment))
    for text in (value, f'"{value}"'):
        try:
            return tomllib.loads(f"{key} = {text}")
        except tomllib.TOMLDecodeError:
            continue
    raise ConfigError(
        "an override cannot be read", expected="key=value with a TOML value", got=repr(assignment)
    )


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, change in changes.items():
        if isinstance(change, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], change)
        else:
            values[key] = change
