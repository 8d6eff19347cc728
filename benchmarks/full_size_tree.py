"""Writes a tree of the released layout at full size with numbers of no meaning, verifies, loads and plays it.

python benchmarks/full_size_tree.py --out /tmp/tree --json benchmarks/released_load.json

Needs 27 GB of disk, a GPU, and a minute or two. It shows that loading at full size works: seconds, the peak
of the main memory and of the GPU's, beside the estimate that is given before anything is loaded. Says nothing
of pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from worldwire.inputs import Inputs
from worldwire_runtime.benchmark import commit
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.random_weights import random_tensors
from worldwire_runtime.model.text import UMT5Encoder
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.released.tree import DISTILLED, FULL_VAE, LIGHT_VAES, TEXT_ENCODER, TOKENIZER
from worldwire_runtime.released.verify import verify_tree
from worldwire_runtime.sources import CONFIG_FILE, PRESETS, RELEASED_PRESET
from worldwire_runtime.world import World

GIB = 2**30
WORDS = ("<pad>", "</s>", "<unk>", "a", "village", "by", "day")
PROMPT = "a village by day"


def write_tree(folder: Path, config: WorldConfig, device: torch.device) -> None:
    """Every file that a playable tree needs, in the released types."""
    generator = torch.Generator(device).manual_seed(0)
    transformer = folder / DISTILLED
    transformer.mkdir(parents=True, exist_ok=True)
    (transformer / CONFIG_FILE).write_text(json.dumps(config.dit.to_dict()))
    with torch.device("meta"):
        dit, encoder = DiT(config.dit), UMT5Encoder(config.text)
        full = VAE(replace(config.vae, pruning_rate=0.0))
        light = VAE(config.vae)
    save_file(_state(dit, torch.bfloat16, generator), transformer / "diffusion_pytorch_model.safetensors")
    torch.save(_state(full, torch.float32, generator), folder / f"{FULL_VAE}.pth")
    name = LIGHT_VAES[config.vae.pruning_rate]
    torch.save({"gen_model": _state(light, torch.float32, generator)}, folder / f"{name}.pth")
    state = _state(encoder.model, torch.bfloat16, generator)
    official = {theirs: state[ours] for theirs, ours in encoder.official_names().items()}
    torch.save(official, folder / f"{TEXT_ENCODER}.pth")
    write_tokenizer(folder / TOKENIZER)


def write_tokenizer(folder: Path) -> None:
    """A few words in the place of the real vocabulary."""
    plain = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def measure(folder: Path, device: str, **options: Any) -> dict[str, Any]:
    """Verifies, loads and plays two clips; seconds and peaks."""
    seconds: dict[str, float] = {}
    with _timed(seconds, "verify"):
        report = verify_tree(folder)
    if not report.good:
        raise SystemExit(f"the tree is not as it should be: {report}")
    with _timed(seconds, "load"):
        world = World.load(folder, device=device, **options)
    with _timed(seconds, "first_frame"):
        session = world.session()
        image = None if world.seed_images.names else torch.zeros(world.config.height, world.config.width, 3)
        session.reset(prompt=PROMPT, image=None if image is None else image.byte().numpy())
    for clip in ("first_clip", "second_clip"):
        with _timed(seconds, clip):
            session.step(Inputs(frozenset({"forward"})))
    cuda = world.device.type == "cuda"
    return {
        "seconds": seconds,
        "options": options,
        "peak_main_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
        "peak_device_memory_gib": round(torch.cuda.max_memory_reserved() / GIB, 2) if cuda else None,
        "estimated_memory_gib": world.info.extra["estimated_memory_gib"],
        "device": world.info.extra["device"],
        "precision": world.info.extra["precision"],
        "commit": commit(),
    }


def _state(module: nn.Module, dtype: torch.dtype, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in random_tensors(module, dtype, generator)}


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - begun, 2)


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description="load and play a released tree at full size")
    parser.add_argument("--out", type=Path, required=True, help="where the tree is written, or lies already")
    parser.add_argument("--json", type=Path, required=True, help="the figures")
    parser.add_argument("--config", type=Path, default=PRESETS / RELEASED_PRESET / CONFIG_FILE)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--text-on", default="device")
    args = parser.parse_args()
    config = WorldConfig.from_file(args.config)
    if not (args.out / TOKENIZER).is_dir():
        write_tree(args.out, config, torch.device(args.device))
        if args.config.parent.parent != PRESETS:
            (args.out / CONFIG_FILE).write_text(config.to_json())
    record = measure(args.out, args.device, precision=args.precision, text_on=args.text_on)
    args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
