"""Trains the video VAE: single images first, then clips, within a wall-time (or step) budget.

    torchrun --nproc-per-node 2 -m worldwire_training.commands.train vae \
        --config training/worldwire_training/configs/vae_tiny.toml --data FRAMES --output runs/vae

FRAMES holds `*frames*.npy`, uint8 [episodes, frames, height, width, 3]. The output folder gets

    vae.safetensors   averaged weights, bfloat16, original tensor names
    vae.json          the VAEConfig, with the statistics of the latents
    vae_log.json      quality on held-out episodes against time, and how it was trained
    vae_sheet.png     inputs above, reconstructions below
    checkpoint.pt     everything that --resume continues from; scalars.jsonl: loss curves
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.model.vae import VAE, CausalConv3d, VAEConfig
from worldwire_training.common import (
    COMPILE_OPTIONS,
    EMA,
    Budget,
    Progress,
    Ranks,
    ScalarLog,
    StepBudget,
    TimeBudget,
    average_gradients,
    broadcast_model,
    interruptible,
    load_checkpoint,
    random_state,
    save_checkpoint,
    seed_everything,
    set_learning_rate,
    set_random_state,
    warmup_cosine,
)
from worldwire_training.muon import Muon, is_matrix
from worldwire_training.vae_data import FrameSource, MemoryFrames, augment, to_video
from worldwire_training.vae_fast import speed_up
from worldwire_training.vae_losses import LossWeights, psnr_db, vae_loss
from worldwire_training.vae_report import Quality, contact_sheet, latent_statistics, measure, write_png

log = logging.getLogger(__name__)

Compile = Literal["none", "norms", "whole"]
Phase = Literal["images", "clips"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "vae.safetensors"
CONFIG = "vae.json"
HISTORY = "vae_log.json"
SHEET = "vae_sheet.png"
LOGVAR_RANGE = (-20.0, 10.0)
ADAM_BETAS = (0.9, 0.99)
ADAM_RATE_SHARE = 1 / 3
"""Learning rate of biases and gains (Adam), as a share of that of the weights (Muon)."""


@dataclass(frozen=True)
class VAETrainConfig:
    """One training run. Exactly one of `minutes` (of wall time, compilation included) and `steps` is set.

    Batches are per process. `image_share` is the part of the budget spent on single images before clips
    begin. `latent_noise` is the largest standard deviation, in units of the latents' own, of noise that the
    decoder sees: the latents it will be given are a network's guesses. `compile`: "norms" compiles the norms
    alone (seconds), "whole" the whole loss (about a minute per phase). `cudnn_benchmark` times convolution
    algorithms first, for every shape anew.
    """

    model: VAEConfig = field(default_factory=VAEConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    minutes: float | None = None
    steps: int | None = None
    image_share: float = 0.35
    image_batch: int = 96
    clip_batch: int = 12
    clip_frames: int = 17
    peak_rate: float = 5e-3
    final_rate: float = 1e-4
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    latent_noise: float = 0.1
    colour_jitter: float = 0.3
    precision: Literal["bf16", "float32"] = "bf16"
    compile: Compile = "norms"
    cudnn_benchmark: bool = False
    seed: int = 0
    evaluations: int = 8
    evaluation_frames: int = 33
    evaluation_episodes: int = 16
    checkpoint_every_s: float = 60.0
    log_every: int = 25

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ConfigError(
                "a VAE training budget is unclear",
                expected="exactly one of minutes and steps",
                got=f"minutes {self.minutes}, steps {self.steps}",
            )
        rate = self.model.temporal_factor
        for name in ("clip_frames", "evaluation_frames"):
            if getattr(self, name) % rate != 1:
                raise ConfigError(
                    f"{name} does not fit the VAE", expected=f"1 + {rate}n", got=str(getattr(self, name))
                )
        if not 0.0 <= self.image_share <= 1.0:
            raise ConfigError("image_share is out of range", expected="0 to 1", got=str(self.image_share))


def train_vae(
    config: VAETrainConfig,
    frames: FrameSource,
    held_out: MemoryFrames,
    output: Path,
    *,
    ranks: Ranks,
    resume: bool = False,
) -> Quality:
    """Train, evaluate and write everything that the module's page lists. The same call on every rank.

    Raises:
        CheckpointError: `resume` without a checkpoint, or with one of another model.
    """
    trainer = VAETrainer(config, frames, held_out, output, ranks)
    if resume:
        trainer.resume()
    with interruptible(trainer.ranks, trainer.save) as stop_if_asked:
        while not trainer.budget.spent(trainer.step):
            trainer.train_step()
            stop_if_asked()
    return trainer.finish()


class VAETrainer:
    """The state of one run: weights, their average, optimiser, budget, step, phase and history."""

    def __init__(
        self, config: VAETrainConfig, frames: FrameSource, held_out: MemoryFrames, output: Path, ranks: Ranks
    ) -> None:
        seed_everything(config.seed, ranks)
        self.config, self.frames, self.held_out, self.output, self.ranks = (
            config,
            frames,
            held_out,
            output,
            ranks,
        )
        self.vae = self.build()
        self.parameters = [parameter for parameter in self.vae.parameters() if parameter.requires_grad]
        self.ema = EMA(self.vae, config.ema_decay)
        self.optimizers = build_optimizers(self.parameters, config)
        self.loss = self.loss_function()
        self.curves, self.bar = ScalarLog(output, ranks), Progress("vae", ranks)
        self.step, self.phase_start = 0, 0
        self.phase: Phase = "images" if config.image_share > 0 else "clips"
        self.history: list[dict[str, Any]] = []
        self.budget: Budget = (
            StepBudget(config.steps) if config.steps is not None else TimeBudget(config.minutes or 0.0, ranks)
        )
        self.started = self.saved = time.monotonic()
        self.seconds_before = 0.0

    def build(self) -> VAE:
        """The VAE to train, equal on all ranks."""
        return build_vae(self.config, self.ranks)

    def loss_function(self) -> Callable[[VAE, Tensor], tuple[Tensor, Tensor]]:
        """(vae, u8 frames) to (loss, mean squared error)."""
        return loss_function(self.config)

    @property
    def seconds(self) -> float:
        """Wall time of this run, before a resume included."""
        return self.seconds_before + time.monotonic() - self.started

    def train_step(self) -> None:
        """One optimiser step; now and then a log line, an evaluation, a checkpoint."""
        config, progress = self.config, self.budget.progress(self.step)
        if self.phase == "images" and progress >= config.image_share:
            self._begin_clips()
        rate = warmup_cosine(
            self.step - self.phase_start, progress, config.peak_rate, config.final_rate, config.warmup_steps
        )
        loss, squared_error = self.loss(self.vae, self._sample())
        self.vae.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.parameters, self.ranks)
        torch.nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip)
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, rate)
            optimizer.step()
        self.ema.update(self.vae)
        self.after_step()
        self.step += 1
        if self.step % config.log_every == 0:
            self._log(progress, rate, loss, squared_error)
        if progress * (config.evaluations + 1) >= len(self.history) + 1:
            self._evaluate()
        if self._checkpoint_due():
            self.save()

    def after_step(self) -> None:
        """What else learns in a step."""

    def extra_state(self) -> dict[str, Any]:
        """What else a resumed run needs."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `extra_state`."""

    def _sample(self) -> Tensor:
        config = self.config
        if self.phase == "images":
            picked = self.frames.sample_images(config.image_batch)
        else:
            picked = self.frames.sample_clips(config.clip_batch, config.clip_frames)
        return picked.to(self.ranks.device, non_blocking=True)

    def _begin_clips(self) -> None:
        """Single images only trained the second of each pair of frames; the first starts as its copy."""
        self.phase, self.phase_start = "clips", self.step
        copy_second_frames(dict(self.vae.named_parameters()))
        copy_second_frames(self.ema.shadow)
        log.info("clips from step %d on, after %.0f s", self.step, self.seconds)

    def _log(self, progress: float, rate: float, loss: Tensor, squared_error: Tensor) -> None:
        scalars = {"loss": loss.item(), "train_psnr_db": psnr_db(squared_error).item(), "rate": rate}
        if not math.isfinite(scalars["loss"]):
            problem = f"the loss is not finite at step {self.step}"
            raise ConfigError(problem, remedy="resume the last checkpoint with a lower peak_rate")
        self.curves.add(self.step, {**scalars, "seconds": round(self.seconds, 1)})
        self.bar.show(progress, self.step, scalars)

    def _evaluate(self) -> Quality:
        """PSNR of the averaged weights on held-out episodes; every rank does the same work."""
        config = self.config
        with self.ema.applied(self.vae), autocast(config, self.ranks.device):
            quality = measure(self.vae, self.held_out, config.evaluation_frames, config.evaluation_episodes)
        entry = {"seconds": round(self.seconds, 1), "step": self.step, "phase": self.phase, **asdict(quality)}
        self.history.append(entry)
        self.curves.add(self.step, asdict(quality))
        if self.ranks.is_main:
            log.info("held out: %s", json.dumps(entry))
        return quality

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self.saved >= self.config.checkpoint_every_s

    def save(self) -> None:
        """Write the resumable checkpoint (rank 0)."""
        self.saved = time.monotonic()
        if not self.ranks.is_main:
            return
        state = {
            "model_config": json.dumps(asdict(self.config.model)),
            "vae": self.vae.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "budget": self.budget.state_dict(),
            "random": random_state(),
            "step": self.step,
            "phase": self.phase,
            "phase_start": self.phase_start,
            "history": self.history,
            "seconds": self.seconds,
            "extra": self.extra_state(),
        }
        save_checkpoint(self.output / CHECKPOINT, state)

    def resume(self) -> None:
        """Continue from the checkpoint in the output folder."""
        path = self.output / CHECKPOINT
        state = load_checkpoint(path, self.ranks.device)
        ours = json.dumps(asdict(self.config.model))
        if state["model_config"] != ours:
            raise CheckpointError(f"{path} is of another VAE", expected=ours, got=state["model_config"])
        self.vae.load_state_dict(state["vae"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.budget.load_state_dict(state["budget"])
        self.step, self.phase, self.phase_start = state["step"], state["phase"], state["phase_start"]
        self.history, self.seconds_before = state["history"], state["seconds"]
        self.load_extra_state(state["extra"])
        if self.ranks.is_main:
            set_random_state(state["random"])
        else:
            seed_everything(self.config.seed + self.step, self.ranks)
        log.info("resumed at step %d, %.0f s", self.step, self.seconds)

    def finish(self) -> Quality:
        """Evaluate, measure the latents, write the results."""
        config, device = self.config, self.ranks.device
        self.save()
        quality = self._evaluate()
        self.ema.copy_to(self.vae)
        with autocast(config, device):
            mean, std = self.latent_statistics()
            sheet = contact_sheet(self.vae, self.held_out, config.evaluation_frames)
        if self.ranks.is_main:
            self._write(replace(config.model, latent_mean=mean, latent_std=std), sheet)
        self.curves.close()
        self.bar.close()
        return quality

    def latent_statistics(self) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Mean and standard deviation of each latent channel, for the VAE's configuration."""
        config = self.config
        return latent_statistics(
            self.vae,
            self.frames,
            self.ranks,
            clip_frames=config.clip_frames,
            batch=config.clip_batch,
            batches=8,
        )

    def _write(self, model: VAEConfig, sheet: Tensor) -> None:
        weights = {
            name: tensor.to(torch.bfloat16).contiguous() for name, tensor in self.vae.state_dict().items()
        }
        save_file(weights, self.output / WEIGHTS)
        (self.output / CONFIG).write_text(json.dumps(asdict(model), indent=2) + "\n", encoding="utf-8")
        write_png(self.output / SHEET, sheet)
        report = {
            "quality_db": {key: self.history[-1][key] for key in ("images_db", "clips_db")},
            "history": self.history,
            "steps": self.step,
            "clip_phase_from_step": self.phase_start,
            "seconds": round(self.seconds, 1),
            "processes": self.ranks.world_size,
            "device": device_name(self.ranks.device),
            "parameters": count_parameters(self.vae),
            "config": asdict(self.config),
        }
        (self.output / HISTORY).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        log.info("wrote %s", self.output)


def build_vae(config: VAETrainConfig, ranks: Ranks) -> VAE:
    """A VAE on the rank's device, ready for single images, with the fast layers; equal on all ranks."""
    vae = VAE(replace(config.model, latent_mean=None, latent_std=None)).to(ranks.device)
    prepare_for_images(vae)
    broadcast_model(vae, ranks)
    if config.compile != "whole":
        speed_up(vae, compile_norms=config.compile == "norms")
    if ranks.device.type == "cuda":
        torch.backends.cudnn.benchmark = config.cudnn_benchmark
    return vae


def build_optimizers(
    parameters: Sequence[torch.nn.Parameter], config: VAETrainConfig
) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the weights, Adam for biases and gains."""
    matrices = [parameter for parameter in parameters if is_matrix(parameter)]
    others = {"params": [p for p in parameters if not is_matrix(p)], "lr_scale": ADAM_RATE_SHARE}
    adam = torch.optim.Adam([others], lr=config.peak_rate, betas=ADAM_BETAS, fused=parameters[0].is_cuda)
    return Muon(matrices, lr=config.peak_rate), adam


@torch.no_grad()
def prepare_for_images(vae: VAE) -> None:
    """Start as an image VAE that repeats frames, so that what single images teach carries over to clips.

    Past taps begin at zero, frame pairs are averaged on the way down and repeated on the way up.
    """
    for name, module in vae.named_modules():
        if isinstance(module, CausalConv3d) and module.kernel_size[0] > 1:
            module.weight[:, :, :-1] = 0.0
            module.weight[:, :, -1] *= math.sqrt(module.kernel_size[0])
        if name.endswith("time_conv"):
            repeats = module.weight.shape[0] // module.weight.shape[1]
            identity = (
                torch.eye(module.weight.shape[1]).repeat(repeats, 1).view(*module.weight.shape[:2], 1, 1)
            )
            down = name.startswith("encoder")
            module.weight[:, :, -1] = 0.5 * identity if down else identity
            module.weight[:, :, -2] = 0.5 * identity if down else 0.0
            torch.nn.init.zeros_(module.bias)


@torch.no_grad()
def copy_second_frames(tensors: Mapping[str, Tensor]) -> None:
    """Make the decoder's temporal convolutions give the second frame of each pair twice."""
    for name, tensor in tensors.items():
        if name.startswith("decoder") and ".time_conv." in name:
            half = tensor.shape[0] // 2
            tensor[:half] = tensor[half:]


def loss_function(config: VAETrainConfig) -> Callable[[VAE, Tensor], tuple[Tensor, Tensor]]:
    """(vae, u8 frames) to (loss, mean squared error); compiled as one graph per phase if so configured."""

    def loss(vae: VAE, frames: Tensor) -> tuple[Tensor, Tensor]:
        video = augment(to_video(frames), config.colour_jitter)
        with autocast(config, frames.device):
            mean, logvar = vae.encode_distribution(video)
            logvar = logvar.clamp(*LOGVAR_RANGE)
            output = vae.decode_raw(noisy_latents(mean.float(), logvar.float(), config.latent_noise))
        return vae_loss(output - video, mean, logvar, config.losses)

    whole = config.compile == "whole"
    return torch.compile(loss, dynamic=False, options=COMPILE_OPTIONS) if whole else loss


def noisy_latents(mean: Tensor, logvar: Tensor, most_noise: float) -> Tensor:
    """A sample of the posterior, plus noise of a level drawn for each sample from 0 to `most_noise` stds."""
    spread = mean.detach().std(dim=(0, 2, 3, 4), keepdim=True)
    level = most_noise * torch.rand(mean.shape[0], 1, 1, 1, 1, device=mean.device)
    sampled = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
    return sampled + level * spread * torch.randn_like(mean)


def autocast(config: VAETrainConfig, device: torch.device) -> torch.autocast:
    """Mixed precision as configured."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def count_parameters(vae: VAE) -> dict[str, int]:
    """Parameters of the encoder and of the decoder, each with its 1 x 1 x 1 convolution."""
    parts = {"encoder": (vae.encoder, vae.conv1), "decoder": (vae.decoder, vae.conv2)}
    return {name: sum(p.numel() for m in modules for p in m.parameters()) for name, modules in parts.items()}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
