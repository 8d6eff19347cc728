"""What every training loop here needs: ranks, budgets, schedules, EMA, resumable checkpoints, logs.

Nothing in this file knows a model. A loop reads like

    ranks = Ranks.join(device)
    budget = StepBudget(1000) or TimeBudget(minutes=8.0, ranks=ranks)
    while not budget.spent(step):
        set_learning_rate(optimizer, warmup_cosine(step, budget.progress(step), ...))
        loss.backward(); average_gradients(parameters, ranks); optimizer.step(); ema.update(model)
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import random
import signal
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from worldwire.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

Config = TypeVar("Config")
CACHE_TAG = "worldwire-no-cudnn-attention"
"""What compiles in training keeps apart from what chose its kernels otherwise."""
COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"triton.mix_order_reduction": False}
"""Of every torch.compile in training. With sums over rows and over columns in one kernel, the gradients of
blocks were thousands of times too long and others at each call, from some number of tokens on (torch 2.11;
pytorch/pytorch#190796 tells of 2.10)."""

SYNC_EVERY = 10
"""Steps between two agreements of the ranks on the time."""


# ---------------------------------------------------------------------------------------------- ranks


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of one `torchrun`; alone when there is no torchrun.

    sharing: how many neighbours, itself included, have one clip together (`context_parallel.py`).
    """

    rank: int
    world_size: int
    device: torch.device
    sharing: int = 1

    @classmethod
    def join(cls, device: str = "auto") -> Ranks:
        """Read torchrun's environment and open the process group when there is more than one process.

        `device` is "auto", "cpu" or "cuda"; with CUDA each local rank takes the GPU of its number, whose
        float32 products may use TF32. That is settled here, before anything compiles: it is part of the key
        under which torch.compile's cache is read.

        No attention of cuDNN, whose backward kernels give NaN for some lengths (pytorch/pytorch#196678 and
        others). The compiler chooses kernels as it traces, and that choice is in no key: a tag makes it so.
        """
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        place = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(place)
            torch.set_float32_matmul_precision("high")
            torch.backends.cuda.enable_cudnn_sdp(False)
            tags = torch.compiler.config.cache_key_tag.split()
            torch.compiler.config.cache_key_tag = " ".join(dict.fromkeys([*tags, CACHE_TAG]))
        if world_size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo", device_id=place if cuda else None)
        return cls(rank, world_size, place)

    def sharing_clips(self, count: int) -> Ranks:
        """The same process as one of `count` neighbours that have their clips together.

        Raises ConfigError when the processes do not divide into such groups.
        """
        if self.world_size % count:
            raise ConfigError(
                "the processes do not divide into groups that share a clip",
                expected=f"a multiple of context_parallel = {count}",
                got=f"{self.world_size} processes",
                remedy="start torchrun with another --nproc-per-node, or change context_parallel",
            )
        return dataclasses.replace(self, sharing=count)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def clip_rank(self) -> int:
        """The number of this process's group among those that have clips of their own."""
        return self.rank // self.sharing

    @property
    def clip_ranks(self) -> int:
        """How many such groups there are."""
        return self.world_size // self.sharing

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def broadcast_float(self, value: float) -> float:
        """Rank 0's `value` on every rank."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def mean(self, value: Tensor) -> Tensor:
        """Mean of `value` over the ranks; a new tensor on every rank."""
        if self.world_size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.world_size

    def most(self, value: float) -> float:
        """The largest `value` of all ranks, on every rank."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return float(shared.item())

    def leave(self) -> None:
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def broadcast_model(model: nn.Module, ranks: Ranks) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if ranks.world_size == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)


def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Replace each gradient with its mean over the ranks, in one all-reduce per dtype.

    A plain function instead of a DDP wrapper: the model keeps its class and its tensor names, compiled
    or not, and at these sizes one flat all-reduce costs about a millisecond. Every rank must have
    gradients for the same parameters.
    """
    if ranks.world_size == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= ranks.world_size
        pieces = flat.split([gradient.numel() for gradient in gradients])
        shaped = [piece.view(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)]
        torch._foreach_copy_(gradients, shaped)


# ----------------------------------------------------------------------------- budgets and schedules


class Budget(Protocol):
    """How much of a run is done. `progress` is 0 at the start and 1 when the budget is spent."""

    def progress(self, step: int) -> float: ...

    def spent(self, step: int) -> bool: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class StepBudget:
    """A run of a fixed number of steps."""

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ConfigError(f"a step budget must be at least 1 step, got {steps}")
        self.steps = steps

    def progress(self, step: int) -> float:
        return min(1.0, step / self.steps)

    def spent(self, step: int) -> bool:
        return step >= self.steps

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state  # the step counter is all there is, and the loop keeps that


class TimeBudget:
    """A run of a fixed wall time, so that a decay always finishes however fast the machine is.

    Rank 0's clock counts. Ranks agree on it once in `SYNC_EVERY` steps (the agreement waits for the GPU),
    and all ranks must ask with the same sequence of steps. Time spent before a resume counts.
    """

    def __init__(self, minutes: float, ranks: Ranks) -> None:
        if minutes <= 0:
            raise ConfigError(f"a time budget must be positive, got {minutes} minutes")
        self.seconds = 60.0 * minutes
        self._ranks = ranks
        self._before = 0.0
        self._started = time.monotonic()
        self._agreed_step = -1
        self._agreed = 0.0

    def elapsed(self) -> float:
        """Seconds spent on this rank, runs before a resume included."""
        return self._before + time.monotonic() - self._started

    def progress(self, step: int) -> float:
        if self._agreed_step < 0 or step - self._agreed_step >= SYNC_EVERY:
            self._agreed = self._ranks.broadcast_float(self.elapsed())
            self._agreed_step = step
        return min(1.0, self._agreed / self.seconds)

    def spent(self, step: int) -> bool:
        return self.progress(step) >= 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.elapsed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._before = float(state["elapsed"])
        self._started = time.monotonic()
        self._agreed_step = -1


def warmup_cosine(step: int, progress: float, peak: float, final: float, warmup_steps: int) -> float:
    """Learning rate: linear over `warmup_steps`, times a cosine from `peak` to `final` over `progress`."""
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, progress))))
    return warmup * (final + (peak - final) * cosine)


def warmup_stable_decay(
    step: int, progress: float, peak: float, final: float, *, warmup_steps: int, decay_share: float
) -> float:
    """Learning rate: linear over `warmup_steps`, then `peak`, then linear to `final` over the last part.

    `decay_share` of the budget decays. Until then the rate does not depend on the budget, which may thus
    still grow (Hu et al. 2024, MiniCPM, section 4).
    """
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    left = min(1.0, max(0.0, 1.0 - progress) / decay_share) if decay_share > 0 else 1.0
    return warmup * (final + (peak - final) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate, times the group's own `lr_scale` when it has one.

    A tensor rate (`capturable` or compiled optimisers) is filled in place, so nothing is recompiled.
    """
    for group in optimizer.param_groups:
        scaled = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


# ------------------------------------------------------------------------------------------------ EMA


class EMA:
    """Exponential moving average of a model's floating-point parameters and buffers, in float32.

    The decay is warmed up as min(decay, (1 + n) / (10 + n)) over the updates n, so that a short run's
    average is not dominated by its random start.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"EMA decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.shadow = {name: tensor.detach().float().clone() for name, tensor in _averaged(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        present = [tensor.detach().float() for _, tensor in _averaged(model)]
        torch._foreach_lerp_(list(self.shadow.values()), present, 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights with the average."""
        for name, tensor in _averaged(model):
            tensor.copy_(self.shadow[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged weights inside the block, with its own again after it."""
        kept = {name: tensor.detach().clone() for name, tensor in _averaged(model)}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _averaged(model):
                    tensor.copy_(kept[name])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        given = state["shadow"]
        if set(given) != set(self.shadow):
            odd = sorted(set(given) ^ set(self.shadow))
            raise CheckpointError(f"the EMA does not fit this model; tensors on one side only: {odd[:8]}")
        self.updates = int(state["updates"])
        for name, tensor in self.shadow.items():
            tensor.copy_(given[name])


def _averaged(model: nn.Module) -> list[tuple[str, Tensor]]:
    named = (*model.named_parameters(), *model.named_buffers())
    return [(name, tensor) for name, tensor in named if tensor.is_floating_point()]


# ----------------------------------------------------------------------------- resumable checkpoints


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a resumable training state so that `path` is always whole: the old one or the new one.

    Raises CheckpointError when it cannot be written (a full disk); the old one is still there then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch turns errors of the file into a RuntimeError
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} cannot be written: {error}",
            expected="a disk with room for it",
            remedy="the one before is kept: make room, then resume",
        ) from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: no such file, or it is not such a checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(
            f"no training checkpoint at {path}", remedy="start without resuming to begin a new run"
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises many unrelated types for a damaged file
        raise CheckpointError(
            f"{path} is not a readable training checkpoint ({error})",
            remedy="delete it and start the run again",
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(str(path), expected="a dictionary of training state", got=type(state).__name__)
    return state


def differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> list[str]:
    """Where two nested settings differ, as "name: before -> now" lines."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{place}{name}.")
        elif old != new:
            found.append(f"{place}{name}: {old!r} -> {new!r}")
    return found


def random_state() -> dict[str, Any]:
    """The state of torch's, NumPy's and Python's global generators, as plain data for a checkpoint."""
    numpy_state: Any = np.random.get_state(legacy=True)
    _, numpy_keys, position, has_gauss, cached = numpy_state
    version, python_keys, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(numpy_keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(python_keys), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Continue the generators from `random_state`'s answer."""
    torch.set_rng_state(state["torch"].cpu())
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, python_keys, gauss = state["python"]
    random.setstate((version, tuple(python_keys), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def seed_everything(seed: int, ranks: Ranks) -> None:
    """Seed all global generators, differently on each rank."""
    seed += ranks.rank
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


# ------------------------------------------------------------------------------- logs and progress


class ScalarLog:
    """Loss curves: always one JSON object per line, and TensorBoard events when it is installed.

    Only rank 0 writes. A resumed run appends.
    """

    def __init__(self, directory: Path, ranks: Ranks) -> None:
        self._file = None
        self._board = None
        if not ranks.is_main:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._file = (directory / "scalars.jsonl").open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("tensorboard is not installed; curves go to %s only", directory / "scalars.jsonl")
        else:
            self._board = SummaryWriter(str(directory))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record named values of one step."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, "time_s": round(time.time(), 2), **scalars}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


@contextmanager
def interruptible(ranks: Ranks, save: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Inside, Ctrl-C lets the step end: the yielded function, called between two steps, saves and raises
    KeyboardInterrupt then. The second Ctrl-C ends the process at once.

    With several ranks, which would have to agree on it, and outside the main thread it is left as it is.
    """
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        log.info("stopping after this step (again: at once)")

    alone = ranks.world_size == 1 and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, ask) if alone else None

    def stop_if_asked() -> None:
        if asked:
            save()
            log.info("the last step is kept; to go on: --resume")
            raise KeyboardInterrupt

    try:
        yield stop_if_asked
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


class Timer:
    """Due once in so many minutes of rank 0's clock; never with 0.

    What is due is often work of all ranks: one that saw it later than the others would be in its next step
    while they wait for it. So ranks agree on it, once in `SYNC_EVERY` steps; all must ask at the same ones.
    """

    def __init__(self, minutes: float, ranks: Ranks) -> None:
        self._seconds = 60 * minutes
        self._ranks = ranks
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether it is time, after so many steps of the run."""
        if not self._seconds or (self._ranks.world_size > 1 and step % SYNC_EVERY):
            return False
        if self._ranks.broadcast_float(time.monotonic() - self._last) < self._seconds:
            return False
        self._last = time.monotonic()
        return True


class Progress:
    """A progress bar over a run's progress in percent; log lines instead where tqdm is not installed."""

    def __init__(self, title: str, ranks: Ranks, log_every_s: float = 15.0) -> None:
        self._title = title
        self._main = ranks.is_main
        self._log_every_s = log_every_s
        self._logged = 0.0
        self._bar = None
        if not self._main:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            log.info("tqdm is not installed; progress is logged instead")
        else:
            bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
            self._bar = tqdm(total=100.0, desc=title, bar_format=bar_format)

    def show(self, progress: float, step: int, scalars: Mapping[str, float]) -> None:
        """Show `progress` (0..1) and some values."""
        if not self._main:
            return
        values = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        if self._bar is not None:
            self._bar.n = round(100.0 * progress, 1)
            self._bar.set_postfix_str(f"step {step} {values}")
        elif time.monotonic() - self._logged >= self._log_every_s:
            self._logged = time.monotonic()
            log.info("%s %.0f %% step %d %s", self._title, 100.0 * progress, step, values)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


# --------------------------------------------------------------------------------------------- config


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file into the dataclass `kind`; tables become the dataclasses of nested fields.

    Raises:
        ConfigError: no such file, not TOML, or a key that `kind` does not have (the keys it has are named).
    """
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return config_from_dict(values, kind, str(path))


def _dataclass_among(hint: Any) -> Any:
    """The dataclass of `Dataclass | None`; any other type as it is."""
    return next((kind for kind in get_args(hint) if dataclasses.is_dataclass(kind)), hint)


def check_plain_type(where: str, value: Any, hint: Any) -> None:
    """ConfigError when a number, a text or a yes or no was expected, and something else came."""
    accepted = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}.get(hint)
    if accepted and (not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool)):
        raise ConfigError(f"{where} has the wrong type", expected=hint.__name__, got=repr(value))


def config_from_dict(values: Mapping[str, Any], kind: type[Config], where: str) -> Config:
    """`kind(**values)` with nested dataclasses, tuples for lists, and unknown keys refused by name."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown keys {unknown}", expected=f"keys among {sorted(fields)}")
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, value in values.items():
        inner = _dataclass_among(hints[name])
        if isinstance(value, Mapping) and dataclasses.is_dataclass(inner):
            given[name] = config_from_dict(value, inner, f"{where} [{name}]")  # type: ignore[arg-type]
        else:
            check_plain_type(f"{where}: {name}", value, hints[name])
            given[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
