"""What a world is made of: the JSON file beside its weights, read into frozen dataclasses.

Unknown keys, missing keys and values out of range are one ConfigError before any weights are read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from worldwire.api import WorldInfo
from worldwire.camera import Intrinsics
from worldwire.errors import ConfigError
from worldwire.inputs import KEYS
from worldwire.motion import VIEWS, MotionModel
from worldwire_runtime.model.config import DiTConfig
from worldwire_runtime.model.sampler import TRAIN_STEPS
from worldwire_runtime.model.text import TinyTextConfig, UMT5Config
from worldwire_runtime.model.vae import FRAMES_PER_LATENT, VAEConfig
from worldwire_runtime.quantize.config import Quantization

FORMAT_VERSION = 1
LATENT_STRIDE_PX = 16

Conventions = Literal["worldwire", "released"]
Solver = Literal["euler", "unipc"]
MemorySelection = Literal["overlap", "official"]

T = TypeVar("T")


@dataclass(frozen=True)
class ClipPlan:
    """How many latents a clip holds (paper: 15 / 4 / 10 / 5).

    first: latents of the first clip, the image's own included. past: clean latents before the new ones, once
    there are that many. new: latents of one step, 4 frames each. memory: retrieved latents beside them.
    """

    first: int
    past: int
    new: int
    memory: int

    def __post_init__(self) -> None:
        if self.first < 2 or self.past < 1 or self.new < 1 or self.memory < 0:
            raise ConfigError(
                "a clip plan is impossible",
                expected="first >= 2, past >= 1, new >= 1, memory >= 0 latents",
                got=str(dataclasses.asdict(self)),
            )

    def new_latents(self, held: int) -> int:
        """Latents that the next step adds to a session that holds `held` of them."""
        return self.first - 1 if held == 1 else self.new


@dataclass(frozen=True)
class SamplerConfig:
    """The flow sampler: `steps` at noise levels bent by `shift`.

    A first picture that the prompt alone makes takes more steps, and classifier-free guidance: how far its
    velocity goes beyond that of an empty prompt (1: no further).
    solver, guidance, negative_prompt: of the released model; `guidance` above 1 needs a second, null forward
    in each step, which sees the negative prompt, no actions and no memory.
    """

    steps: int = 4
    shift: float = 3.0
    first_picture_steps: int = 16
    first_picture_guidance: float = 1.0
    solver: Solver = "euler"
    guidance: float = 1.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        _check_choice("sampler.solver", self.solver, get_args(Solver))


@dataclass(frozen=True)
class ExpertsConfig:
    """Two transformers of equal size, switched by noise level; the one for high noise also by the view.

    boundary: timesteps (0 ... 1000) from here on up go to the high-noise expert. offload: experts that are
    not at work wait in the main memory.
    """

    boundary: float = 900.0
    offload: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.boundary < TRAIN_STEPS:
            raise ConfigError(
                "experts.boundary is no noise level",
                expected=f"between 0 and {TRAIN_STEPS}",
                got=str(self.boundary),
            )


@dataclass(frozen=True)
class WorldConfig:
    """One world. Lengths in pixels, angles in degrees; the plans are named, `default_plan` is one of them.

    window_time_start: rotary time of a clip's first window latent; memory slots count up from 0 below it, so
    that times stay relative to the clip and a session never runs out of them. rolling_latents: how many
    latents keep one anchor and count of times under `rolling` attention (`worldwire_runtime.rolling`), and
    rolling_turn_deg how far the camera may turn away from that anchor: as far as the weights were trained.
    conventions: "released" words clips as the released model wants them (`worldwire_runtime.released`).
    vertical_fov_deg: None for square pixels. quantization: what the weights are stored for, if for 8 bits.
    """

    name: str
    height: int
    width: int
    frames_per_second: float
    horizontal_fov_deg: float
    dit: DiTConfig
    vae: VAEConfig
    text: TinyTextConfig | UMT5Config
    plans: dict[str, ClipPlan]
    default_plan: str
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    motion: MotionModel = field(default_factory=MotionModel)
    trained_keys: tuple[str, ...] = KEYS
    views: tuple[str, ...] = VIEWS
    window_time_start: int = 8
    memory_far_m: float = 12.0
    rolling_latents: int = 32
    rolling_turn_deg: float = 180.0
    memory_selection: MemorySelection = "overlap"
    conventions: Conventions = "worldwire"
    vertical_fov_deg: float | None = None
    experts: ExpertsConfig | None = None
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        if self.height % (2 * LATENT_STRIDE_PX) or self.width % (2 * LATENT_STRIDE_PX):
            raise ConfigError(
                "the picture size does not divide into tokens",
                expected=f"multiples of {2 * LATENT_STRIDE_PX} pixels",
                got=f"{self.height}x{self.width}",
            )
        largest = max(plan.memory for plan in self.plans.values()) if self.plans else 0
        if largest > self.window_time_start and self.conventions == "worldwire":
            raise ConfigError(
                "memory times reach into the window",
                expected=f"<= {self.window_time_start} slots",
                got=str(largest),
            )
        longest = max((max(plan.first, plan.past + plan.new) for plan in self.plans.values()), default=0)
        if longest > self.rolling_latents:
            raise ConfigError(
                "a clip is longer than rolling_latents",
                expected=f">= {longest}",
                got=str(self.rolling_latents),
            )
        if not 0 < self.rolling_turn_deg <= 180:
            raise ConfigError(
                "rolling_turn_deg is no angle",
                expected="more than 0, up to 180",
                got=str(self.rolling_turn_deg),
            )
        _check_choice("memory_selection", self.memory_selection, get_args(MemorySelection))
        _check_choice("conventions", self.conventions, get_args(Conventions))
        self.plan()

    @property
    def intrinsics(self) -> Intrinsics:
        """The camera of every frame, in pixels."""
        camera = Intrinsics.from_fov(self.height, self.width, self.horizontal_fov_deg)
        if self.vertical_fov_deg is None:
            return camera
        fy = Intrinsics.from_fov(self.width, self.height, self.vertical_fov_deg).fx
        return dataclasses.replace(camera, fy=fy)

    @property
    def latent_hw(self) -> tuple[int, int]:
        """Rows and columns of latent cells."""
        return self.height // LATENT_STRIDE_PX, self.width // LATENT_STRIDE_PX

    def plan(self, name: str | None = None) -> ClipPlan:
        """A clip plan by its name."""
        wanted = name or self.default_plan
        if wanted not in self.plans:
            raise ConfigError("unknown clip plan", expected=" or ".join(self.plans), got=repr(wanted))
        return self.plans[wanted]

    def info(self, plan: ClipPlan, seed_images: tuple[str, ...]) -> WorldInfo:
        """What clients are told."""
        camera = self.intrinsics
        return WorldInfo(
            name=self.name,
            height=self.height,
            width=self.width,
            frames_per_second=self.frames_per_second,
            frames_per_step=plan.new * FRAMES_PER_LATENT,
            horizontal_fov_deg=self.horizontal_fov_deg,
            trained_keys=self.trained_keys,
            views=self.views,
            seed_images=seed_images,
            extra={
                "clip_plan": dataclasses.asdict(plan),
                "attention": self.dit.attention,
                "era_latents": self.rolling_latents if self.dit.attention == "rolling" else 0,
                "vae_pruning": self.vae.pruning_rate,
                "steps": self.sampler.steps,
                "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
            },
        )

    def to_json(self) -> str:
        """The text of a `config.json`."""
        return json.dumps({"format": FORMAT_VERSION} | dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> WorldConfig:
        """Reads a `config.json`."""
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read: {error}", expected="a worldwire config.json"
            ) from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT_VERSION:
            raise ConfigError(f"{path} has another format", expected=f'"format": {FORMAT_VERSION}')
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WorldConfig:
        """Builds the nested dataclasses; every unknown or missing key is named."""
        given = dict(values)
        sections: dict[str, Any] = {
            "dit": DiTConfig.from_dict,
            "vae": lambda section: build(VAEConfig, section, "vae"),
            "text": _text_config,
            "experts": lambda section: build(ExpertsConfig, section, "experts"),
            "quantization": lambda section: build(Quantization, section, "quantization"),
            "sampler": lambda section: build(SamplerConfig, section, "sampler"),
            "motion": lambda section: build(MotionModel, _tuples(section), "motion"),
            "plans": lambda section: {
                name: build(ClipPlan, plan, f"plans.{name}") for name, plan in section.items()
            },
        }
        for name, read in sections.items():
            if given.get(name) is not None:
                given[name] = read(given[name])
        return build(cls, _tuples(given), "config")


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from a mapping, or a ConfigError that names the keys that are unknown or missing."""
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    required = {
        name
        for name, item in fields.items()
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(values))
    if unknown or missing:
        raise ConfigError(
            f"{where} has wrong keys",
            expected=", ".join(fields),
            got="; ".join(
                f"{what}: {', '.join(names)}"
                for what, names in (("unknown", unknown), ("missing", missing))
                if names
            ),
        )
    return kind(**values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the dataclasses have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _text_config(section: Mapping[str, Any]) -> TinyTextConfig | UMT5Config:
    """The small encoder has a vocabulary of words; umT5 has one of numbered pieces."""
    kind = UMT5Config if "dim_attn" in section else TinyTextConfig
    return kind.from_dict(section)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"unknown {name}", expected=" or ".join(known), got=repr(value))
