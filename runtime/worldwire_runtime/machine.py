"""What the machine at hand can do, asked before any long work: devices, number formats, memory, artefacts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

from worldwire.errors import ConfigError, MachineError
from worldwire_runtime.quantize.config import PRECISIONS as EIGHT_BIT_PRECISIONS
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.usage import GIB

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
FP8_CAPABILITY = (8, 9)  # Ada; Hopper is (9, 0)


def pick_device(device: str) -> torch.device:
    """The device by its name; "auto" is a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError("unknown device", expected="auto, cpu, cuda or cuda:N", got=repr(device))
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise MachineError(
            f"there is no device {device}",
            got=f"{torch.cuda.device_count()} CUDA devices",
            remedy="use --device cpu",
        )
    return place


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format; "auto" is bfloat16 where the device multiplies it natively."""
    if precision == "auto" or precision in EIGHT_BIT_PRECISIONS:
        native = (
            device.type == "cuda"
            or torch.cpu._is_avx512_bf16_supported()
            or torch.cpu._is_amx_tile_supported()
        )
        return torch.bfloat16 if native else torch.float32
    if precision not in PRECISIONS:
        raise ConfigError(
            "unknown precision",
            expected="auto or " + " or ".join((*PRECISIONS, *EIGHT_BIT_PRECISIONS)),
            got=repr(precision),
        )
    return PRECISIONS[precision]


def check_arithmetic(quantization: Quantization | None, device: torch.device) -> None:
    """MachineError for FP8 on a GPU whose cores cannot multiply it."""
    if quantization is None or quantization.arithmetic != "fp8" or device.type != "cuda":
        return
    refuse_fp8(torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device))


def refuse_fp8(capability: tuple[int, int], name: str) -> None:
    """MachineError where a GPU of this compute capability has no FP8."""
    if capability < FP8_CAPABILITY:
        raise MachineError(
            "this GPU cannot multiply FP8 numbers",
            expected="compute capability {}.{} or later".format(*FP8_CAPABILITY),
            got="{}: {}.{}".format(name, *capability),
            remedy="use --precision int8",
        )


def limit_memory(device: torch.device, gib: float) -> None:
    """From now on this process gets at most `gib` of a GPU's memory, as a smaller card would give it.

    Raises ConfigError for a limit that is none, or a device that has no such limit.
    """
    if device.type != "cuda":
        raise ConfigError("only a GPU's memory can be limited", expected="a CUDA device", got=str(device))
    total_gib = torch.cuda.mem_get_info(device)[1] / GIB
    if not 0 < gib <= total_gib:
        raise ConfigError(
            "the limit of memory is none", expected=f"0 to {total_gib:.1f} GiB", got=f"{gib:g} GiB"
        )
    index = torch.cuda.current_device() if device.index is None else device.index  # "cuda" alone is refused
    torch.cuda.set_per_process_memory_fraction(gib / total_gib, index)


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


# ---------------------------------------------------------------------- engines and caches


def build_facts(device: torch.device) -> dict[str, str]:
    """What an engine or a compiled cache depends on."""
    facts = {"torch": str(torch.__version__), "device": device.type}
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        facts |= {
            "device": torch.cuda.get_device_name(device),
            "capability": "{}.{}".format(*capability),
            "cuda": str(torch.version.cuda),
        }
    return facts


def check_build(path: Path, built: Mapping[str, str], here: Mapping[str, str], remedy: str) -> None:
    """MachineError for an engine or cache that was built for another GPU or version; names what differs."""
    differing = sorted(name for name in here if built.get(name) != here[name])
    if differing:
        raise MachineError(
            f"{path} was built for another machine",
            expected=", ".join(f"{name} {here[name]}" for name in differing),
            got=", ".join(f"{name} {built.get(name, 'unknown')}" for name in differing),
            remedy=remedy,
        )
