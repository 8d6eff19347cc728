"""A world that is a checkered plane, ray-cast in numpy, so that motion shows; `fake_world` does the rest.

`SceneWorld` stands where `worldwire_runtime.World` would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from fake_world import FRAMES_PER_LATENT, FakeSession, FakeWorld
from numpy.typing import NDArray

from worldwire import Frame, Intrinsics, PlayerPose, WorldInfo
from worldwire.errors import ConfigError

EYE_HEIGHT_M = 1.6
SCENES = {"meadow": (90, 160, 80), "desert": (200, 170, 110), "dusk": (90, 80, 130)}
"""The colour of the ground by the name of a seed image."""
SEEDS = {name: {"prompt": f"a {name}", "view": "third" if name == "dusk" else "first"} for name in SCENES}


@dataclass
class SceneWorld(FakeWorld):
    """A fake world that can be looked at."""

    height: int = 48
    width: int = 80

    @property
    def info(self) -> WorldInfo:
        info = super().info
        return replace(info, seed_images=tuple(SCENES), extra=info.extra | {"seeds": SEEDS})

    def session(self, plan: str | None = None) -> SceneSession:
        self.open_sessions += 1
        return SceneSession(self, plan or "low-latency")


class SceneSession(FakeSession):
    """Draws the plane from the camera of the view; its memory holds every third latent."""

    def reset(self, prompt=None, image=None, seed=0, view=None) -> Frame:
        name = image if isinstance(image, str) else list(SCENES)[seed % len(SCENES)]
        if name not in SCENES:
            raise ConfigError("unknown seed image", expected=", ".join(SCENES), got=repr(name))
        self._scene, self._view = name, view or SEEDS[name]["view"]
        self._index, self._player = 0, PlayerPose()
        return self._frame()

    def _frame(self, timings_ms: dict[str, float] | None = None) -> Frame:
        c2w = self._motion.camera(self._player, self._view)
        newest = (self._index + FRAMES_PER_LATENT - 1) // FRAMES_PER_LATENT
        memory = tuple(range(0, max(newest - 4, 0), 3))[-5:]
        pixels = render(self.world.info, c2w, SCENES[self._scene])
        return Frame(self._index, pixels, c2w, 0, memory, timings_ms or {})


def render(info: WorldInfo, c2w: NDArray[np.float64], ground_rgb: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The checkered plane and the sky as seen by a camera, uint8 [height, width, 3]."""
    camera = Intrinsics.from_fov(info.height, info.width, info.horizontal_fov_deg)
    v, u = np.mgrid[: info.height, : info.width] + 0.5
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    rays = rays @ c2w[:3, :3].T
    distance = (EYE_HEIGHT_M - c2w[1, 3]) / np.maximum(rays[..., 1], 1e-6)
    x, z = c2w[0, 3] + distance * rays[..., 0], c2w[2, 3] + distance * rays[..., 2]
    checker = (np.floor(x / 2) + np.floor(z / 2)) % 2 * 0.35 + 0.65
    haze = np.exp(-distance / 40)[..., None]
    azimuth = np.arctan2(rays[..., 0], rays[..., 2])
    sky = np.stack([140 + 40 * np.sin(3 * azimuth), 170 + 30 * np.cos(2 * azimuth), 220 + 0 * azimuth], -1)
    ground = np.array(ground_rgb) * checker[..., None] * haze + sky * (1 - haze)
    return np.where((rays[..., 1] > 1e-6)[..., None], ground, sky).astype(np.uint8)


INFO = SceneWorld().info
