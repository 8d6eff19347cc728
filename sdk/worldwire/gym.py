"""A generated world as a Gymnasium environment (extra "robotics").

    import gymnasium, worldwire.gym
    env = gymnasium.make("worldwire/World-v0", host="tcp://127.0.0.1:5555")        # worldwire serve
    env = gymnasium.make("worldwire/World-v0", host=World.load("tiny"), actions="pose", axes="ros")

One step of the environment is one step of the session: its action is held (or, a pose, moved to) for all of
its frames, 8 in the low-latency plan of `tiny`, half a second of its world. The observation is the last one.

A world has no task: the reward is 0 unless `reward` says otherwise, and an episode ends only by a wrapper
(`max_episode_steps` of gymnasium.make).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol, runtime_checkable

try:
    import gymnasium
except ModuleNotFoundError as missing:
    from worldwire.errors import MissingExtraError

    raise MissingExtraError("worldwire.gym", "robotics") from missing

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldwire.api import Frame, SessionLike, WorldInfo
from worldwire.axes import by_name
from worldwire.client import connect
from worldwire.errors import ConfigError, StateError
from worldwire.inputs import KEYS, Inputs
from worldwire.protocol import DEFAULT_ADDRESS
from worldwire.trajectory import interpolate

ID: Final = "worldwire/World-v0"
MAX_LOOK_DEG: Final = 90.0 / 16
"""The turn of one frame at full action: as fast as `tiny` saw anybody turn, 90 degrees a second."""
POSE_RANGE_M: Final = 1000.0
OPTIONS: Final = ("prompt", "image", "view")
MAX_SEED: Final = 2**31

Pixels = NDArray[np.uint8]
Action = dict[str, Any]
Reward = Callable[[Sequence[Frame], Action], float]


@runtime_checkable
class Host(Protocol):
    """Where sessions come from: a `worldwire.Client` or a `worldwire_runtime.world.World`."""

    @property
    def info(self) -> WorldInfo:
        """The world."""
        ...

    def session(self, plan: str | None = None) -> SessionLike:
        """A new session."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class WorldwireEnv(gymnasium.Env[Pixels, Action]):
    """One walk through a world.

    host: the address of a server, a `Client`, a `World`, or a function without arguments that makes one of
        these (for processes of a vector environment). What the environment made itself, it also closes.
    plan: the name of a clip plan, None for the world's own; it decides how many frames a step has.
    actions: "keys" for {"keys": MultiBinary, "look": Box(-1, 1, 2)}: the world's trained keys (`key_names`)
        and yaw to the right, pitch up in parts of `max_look_deg` a frame;
        "pose" for {"position": Box(3), "quaternion_xyzw": Box(4)}: where the camera is at the end of the
        step, counted from where the episode began; it goes there evenly.
    axes: what the poses of actions and info are in, a name of `worldwire.axes.BY_NAME`, in its units.
    reward: called with the frames of the step and the action; None gives 0.
    render_mode: "rgb_array" is the newest frame; "rgb_array_list" every frame since the last call.

    info has `frames` uint8 [F, H, W, 3], `indices` [F] and `matrices` [F, 4, 4], the camera-to-world of each
    frame in `axes`. reset takes options prompt, image and view (see `SessionLike.reset`); its seed is the
    session's, so the same seed and actions give the same frames.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 16}  # noqa: RUF012

    def __init__(
        self,
        host: str | Host | Callable[[], Host] = DEFAULT_ADDRESS,
        *,
        plan: str | None = None,
        actions: Literal["keys", "pose"] = "keys",
        axes: str = "wire",
        max_look_deg: float = MAX_LOOK_DEG,
        reward: Reward | None = None,
        render_mode: str | None = None,
    ):
        self.render_mode = _one_of("render mode", render_mode, (None, *self.metadata["render_modes"]))
        self._mode = _one_of("actions", actions, ("keys", "pose"))
        self._axes, self._max_look_deg, self._reward = by_name(axes), max_look_deg, reward
        self._owns_host = not isinstance(host, Host)
        self._host = _open(host)
        try:
            self._session = self._host.session(plan)
        except BaseException:
            self._close_host()
            raise
        info = self._host.info
        self.key_names = tuple(name for name in KEYS if name in info.trained_keys)
        self.observation_space = spaces.Box(0, 255, (info.height, info.width, 3), np.uint8)
        self.action_space = self._action_space()
        self.metadata = self.metadata | {"render_fps": self._render_fps(info)}
        self._frames: list[Frame] = []
        self._unrendered: list[Pixels] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Pixels, dict[str, Any]]:
        """Starts a walk and gives its first picture; without a seed one is drawn (see gymnasium.Env)."""
        super().reset(seed=seed)
        chosen = options or {}
        for name in chosen:
            _one_of("reset option", name, OPTIONS)
        drawn = int(self.np_random.integers(MAX_SEED)) if seed is None else seed
        self._unrendered.clear()
        self._note([self._session.reset(seed=drawn, **chosen)])
        return self._observation(), self._info()

    def step(self, action: Action) -> tuple[Pixels, float, bool, bool, dict[str, Any]]:
        """Plays one step of the session: the last frame, the reward, False, False, and all frames in info."""
        if not self._frames:
            raise StateError("the environment has not started", remedy="call reset() first")
        asked = self._held(action) if self._mode == "keys" else self._moves(action)
        self._note(self._session.step(asked))
        reward = 0.0 if self._reward is None else float(self._reward(self._frames, action))
        return self._observation(), reward, False, False, self._info()

    def render(self) -> Any:
        """See render_mode; None without one or before the first reset."""
        if self.render_mode == "rgb_array_list":
            shown, self._unrendered = self._unrendered, []
            return shown
        newest = self.render_mode == "rgb_array" and self._frames
        return self._frames[-1].pixels if newest else None

    def close(self) -> None:
        """Ends the session, and the host if the environment opened it; closing twice is fine."""
        self._session.close()
        self._close_host()

    # ------------------------------------------------------------------ parts

    def _close_host(self) -> None:
        if self._owns_host:
            self._host.close()

    def _action_space(self) -> spaces.Dict:
        if self._mode == "keys":
            look = spaces.Box(-1.0, 1.0, (2,), np.float32)
            return spaces.Dict({"keys": spaces.MultiBinary(len(self.key_names)), "look": look})
        reach = POSE_RANGE_M / self._axes.metres_per_unit
        return spaces.Dict(
            {
                "position": spaces.Box(-reach, reach, (3,), np.float32),
                "quaternion_xyzw": spaces.Box(-1.0, 1.0, (4,), np.float32),
            }
        )

    def _held(self, action: Action) -> Inputs:
        keys = {name for name, held in zip(self.key_names, action["keys"], strict=True) if held}
        yaw, pitch = (float(part) * self._max_look_deg for part in action["look"])
        return Inputs(frozenset(keys), yaw, pitch)

    def _moves(self, action: Action) -> list[Inputs]:
        """A pose for each frame of the step, evenly from the newest one to the action's."""
        target = self._axes.pose_to_c2w(action["position"], action["quaternion_xyzw"])
        count = self._session.frames_per_step
        way = interpolate(self._frames[-1].c2w, target, np.arange(1, count + 1) / count)
        return [Inputs(c2w=c2w) for c2w in way]

    def _note(self, frames: list[Frame]) -> None:
        self._frames = frames
        if self.render_mode == "rgb_array_list":
            self._unrendered += [frame.pixels for frame in frames]

    def _observation(self) -> Pixels:
        """A copy: pixels off the wire are read-only, and many learners write into what they get."""
        return self._frames[-1].pixels.copy()

    def _info(self) -> dict[str, Any]:
        return {
            "frames": np.stack([frame.pixels for frame in self._frames]),
            "indices": np.array([frame.index for frame in self._frames]),
            "matrices": self._axes.matrix_from_wire(np.stack([frame.c2w for frame in self._frames])),
        }

    def _render_fps(self, info: WorldInfo) -> float:
        """What makes a recording play at the world's own speed."""
        per_render = 1 if self.render_mode == "rgb_array_list" else self._session.frames_per_step
        return info.frames_per_second / per_render


def _open(host: str | Host | Callable[[], Host]) -> Host:
    if isinstance(host, Host):
        return host
    return connect(host) if isinstance(host, str) else host()


def _one_of(what: str, value: Any, known: Sequence[Any]) -> Any:
    if value not in known:
        raise ConfigError(f"unknown {what}", expected=" or ".join(map(repr, known)), got=repr(value))
    return value


gymnasium.register(ID, entry_point="worldwire.gym:WorldwireEnv")
