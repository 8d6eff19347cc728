"""From the names in a released file to those of our networks: wrappers, prefixes, another library's words.

Nothing is dropped silently: what a file holds beyond the network is `set_aside`, and reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from worldwire.errors import CheckpointError
from worldwire_runtime.model.stored import Stored

PLAYED = ("generator.", "gen_model.", "student.", "model.", "state_dict.")
"""Prefixes under which training code stores the network that plays, when there are others beside it."""
DECODER_PARTS = ("conv2.", "decoder.")
ENCODER_PARTS = ("conv1.", "encoder.")

# The light VAE's file may use the names of `diffusers`; the first rule that matches, then the next.
_VAE_RULES: tuple[tuple[str, str], ...] = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.downsamples.\1.downsamples.\2."),
    (r"^encoder\.down_blocks\.(\d+)\.downsampler\.", r"encoder.downsamples.\1.downsamples.{down}."),
    (r"^decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.", r"decoder.upsamples.\1.upsamples.\2."),
    (r"^decoder\.up_blocks\.(\d+)\.upsampler\.", r"decoder.upsamples.\1.upsamples.{up}."),
)
_RESNET_WORDS = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_RESNET = re.compile(r"(\.(?:middle\.[02]|(?:down|up)samples\.\d+\.(?:down|up)samples\.\d+))\.(\w+)\.")


@dataclass(frozen=True)
class Selection:
    """The tensors of one network under its own names, and the names of what else the file holds."""

    stored: Stored
    set_aside: list[str] = field(default_factory=list)


def select_network(stored: Stored, wanted: Collection[str]) -> Selection:
    """A transformer's or text encoder's tensors.

    Plain names go first. Where a file holds the network under a prefix (training code names the student of a
    distillation, its critic and so on), the one that plays is taken and every other set put aside.
    Raises CheckpointError for several sets of which none has a known name.
    """
    copies = [one for one in _prefixes(stored) if {one + name for name in wanted} <= stored.keys()]
    if stored.keys() >= set(wanted):
        prefix, own = "", {name: stored[name] for name in stored if not name.startswith(tuple(copies))}
    elif copies:
        prefix = _played(copies)
        own = {name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)}
    else:
        prefix, own = "", stored
    kept = {prefix + name for name in own}
    return Selection(own, [name for name in stored if name not in kept])


def select_vae(stored: Stored, parts: Iterable[str], res_blocks: tuple[int, int]) -> Selection:
    """The tensors of the named parts of a VAE (`DECODER_PARTS`, `ENCODER_PARTS`), under the original names.

    res_blocks: residual blocks per stage of encoder and decoder, behind which the re-sampling layer stands.
    """
    rename, starts = vae_renamer(res_blocks), tuple(parts)
    renamed = {rename(name): (name, entry) for name, entry in stored.items()}
    own = {ours: entry for ours, (_, entry) in renamed.items() if ours.startswith(starts)}
    return Selection(own, [name for ours, (name, _) in renamed.items() if ours not in own])


def vae_renamer(res_blocks: tuple[int, int]) -> Callable[[str], str]:
    """A function from the names of either library to the original ones; original names stay as they are."""
    down, up = res_blocks
    rules = [
        (re.compile(old), new.format(down=down, up=up) if "{" in new else new) for old, new in _VAE_RULES
    ]

    def rename(name: str) -> str:
        for old, new in rules:
            name = old.sub(new, name)
        return _RESNET.sub(lambda found: f"{found[1]}.{_RESNET_WORDS.get(found[2], found[2])}.", name)

    return rename


def _played(copies: list[str]) -> str:
    """The prefix of the network that is meant to play."""
    known = [prefix for prefix in PLAYED if prefix in copies]
    if not known and len(copies) > 1:
        raise CheckpointError(
            "the file holds several networks of this shape",
            expected="one of them named " + " or ".join(name.rstrip(".") for name in PLAYED),
            got=", ".join(name.rstrip(".") for name in copies),
            remedy="store the one to play in a file of its own",
        )
    return (known or copies)[0]


def _prefixes(names: Iterable[str]) -> list[str]:
    """What stands before the first dot of names, in order, with the dot."""
    return list(dict.fromkeys(name.partition(".")[0] + "." for name in names if "." in name))
