"""The main path of `worldwire quantize`: walk, look, choose gains, report, write."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import ConfigError
from worldwire_runtime.kernels.rows import FORMATS
from worldwire_runtime.quantize.attention import compared
from worldwire_runtime.quantize.calibration import WALK, Samples, recorded, walk_through
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.files import save_quantised
from worldwire_runtime.quantize.layers import layer_names, quantise
from worldwire_runtime.quantize.report import Outcome, layer_errors
from worldwire_runtime.quantize.smoothing import find_gains
from worldwire_runtime.world import CONFIG_FILE, DIT_FILE, World, preset_folder

MAX_PIXEL = 255.0
EQUAL_DB = 99.0


def quantise_world(
    world: World,
    quantization: Quantization,
    *,
    images: int,
    advanced: Callable[[int, int], None] = lambda *_: None,
) -> Outcome:
    """Quantises the network of a loaded (float) world in place, after walking through it."""
    dit = world.denoiser.dit
    names = layer_names(dit, quantization.layers)
    before = first_step(world, images)
    layers = {name: dit.get_submodule(name) for name in names}
    with recorded(layers) as samples, compared(dit) as errors:
        walk_through(world, images=images, advanced=advanced)
    names = _met(names, samples)
    kind = FORMATS[quantization.arithmetic]
    gains = find_gains(dit, names, samples, kind) if quantization.smooth else {}
    lines = layer_errors(dit, names, samples, quantization, gains)
    quantise(dit, quantization, gains)
    attention = {name: sum(values) / len(values) for name, values in errors.items()}
    return Outcome(quantization, lines, attention, psnr_db(before, first_step(world, images)))


def write(world: World, outcome: Outcome, source: str | Path, folder: Path) -> None:
    """A folder that `World.load` takes: the quantised network beside copies of everything else."""
    origin = preset_folder(source)
    if folder.resolve() == origin.resolve() or (folder.exists() and any(folder.iterdir())):
        raise ConfigError("the output folder is in use", expected="a new or empty folder", got=str(folder))
    shutil.copytree(origin, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(DIT_FILE, CONFIG_FILE))
    save_quantised(world.denoiser.dit, folder / DIT_FILE)
    config = replace(world.config, quantization=outcome.quantization)
    (folder / CONFIG_FILE).write_text(config.to_json())


def first_step(world: World, images: int) -> NDArray[np.uint8]:
    """Frames [F, H, W, 3] of one step from each of the first seed images, for comparison."""
    shown = []
    with world.session() as session:
        for name in world.seed_images.names[:images]:
            session.reset(image=name, seed=0)
            shown += [frame.pixels for frame in session.step([WALK[0]] * session.frames_per_step)]
    return np.stack(shown)


def psnr_db(pictures: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio over all pixels; `EQUAL_DB` for equal ones."""
    error = np.square(pictures.astype(np.float64) - others).mean()
    return float(10 * np.log10(MAX_PIXEL**2 / error)) if error else EQUAL_DB


def _met(names: list[str], samples: dict[str, Samples]) -> list[str]:
    """The names, after a check that the walk went through each of them."""
    unseen = [name for name in names if name not in samples]
    if unseen:
        raise ConfigError("the walk never reached some layers", got=", ".join(unseen))
    return names
