"""What a distillation is told (`configs/distill_tiny.toml` explains each choice)."""

from __future__ import annotations

from dataclasses import dataclass, field

from worldwire.errors import ConfigError
from worldwire_training.base_config import OptimizerConfig, RunConfig, read_shapes
from worldwire_training.base_model import NoiseConfig
from worldwire_training.clip_sampler import Shape
from worldwire_training.dmd import ScoreConfig


@dataclass(frozen=True)
class MethodConfig:
    """Losses of the student, and how often it is updated.

    sampler_steps: of the student. segments: the most that a walk has; the number is drawn evenly. dmd: weight
    of distribution matching; without it there is no critic. regression: weight of the distance from the truth
    at the same poses. trajectory: of that from what the teacher makes of the same noise in the same context
    in `teacher_steps` steps. start_share: of the run, at its beginning, goes without dmd while the critic
    learns; without another loss the student waits. critic_updates: of the critic for each of the student.
    kept_share: of the steps are flow matching on `kept` shapes instead, so that the student forgets neither
    first pictures nor long clips.
    """

    sampler_steps: int = 3
    segments: int = 6
    dmd: float = 1.0
    regression: float = 0.5
    trajectory: float = 0.0
    teacher_steps: int = 12
    start_share: float = 0.1
    critic_updates: int = 2
    kept_share: float = 0.15

    def __post_init__(self) -> None:
        if min(self.sampler_steps, self.segments, self.critic_updates, self.teacher_steps) < 1:
            raise ConfigError("a count of the distillation is below 1", got=str(self))
        weights = (self.dmd, self.regression, self.trajectory)
        if not any(weights) or min(weights) < 0:
            raise ConfigError(
                "the student has no loss",
                expected="method.dmd, method.regression or method.trajectory above 0, none below",
                got=str(weights),
            )
        if not (0 <= self.start_share <= 1 and 0 <= self.kept_share < 1):
            raise ConfigError("a share of the distillation is out of range", got=str(self))


@dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig):
    """A distillation. teacher: folder of the base model's world, whose weights student and critic begin with.

    attention: of student and critic ("": the teacher's). shapes: the clips of the walks; kept: those of
    `method.kept_share`. latents_per_step: as for the base model, critic's draws counted. data.vae: "" takes
    the teacher's.
    """

    teacher: str
    attention: str = ""
    kept: tuple[Shape, ...] = ()
    method: MethodConfig = field(default_factory=MethodConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    critic: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kept", read_shapes(self.kept, "[[kept]]"))
        if self.method.kept_share and not self.kept:
            raise ConfigError(
                "there is nothing to keep", expected="[[kept]] shapes, or method.kept_share = 0"
            )

    @property
    def fixed(self) -> tuple[str, ...]:
        return (*super().fixed, "kept", "method", "score", "noise", "optimizer.kind", "critic.kind")
