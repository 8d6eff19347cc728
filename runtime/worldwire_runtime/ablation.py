"""What each part of the speed brings: one thing at a time is taken back, in a fresh server each time.

The first row is the configuration as it was asked for. A variant that fails costs no other one; one that
takes away what is not there is left out, with the reason.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worldwire.errors import ConfigError, MissingExtraError, WorldwireError

Record = dict[str, Any]
"""What `worldwire bench` writes."""

PAPER: Final = "paper, Table 1"
FULL: Final = "full"


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's Table 1: 75 % VAE pruning, several GPUs. exact: whether the paper says "~"."""

    name: str
    fps: float
    exact: bool = True


@dataclass(frozen=True)
class Variant:
    """One thing taken back.

    options: what the command line says instead. there: whether the full configuration has it.
    """

    name: str
    options: Mapping[str, Any]
    there: Callable[[Record], bool]
    paper: PaperRow | None = None


def _speed(name: str) -> Callable[[Record], bool]:
    return lambda record: bool((record.get("speed") or {}).get(name))


def _is_8bit(record: Record) -> bool:
    return str(record.get("precision")).startswith(("int8", "fp8"))


def _is_chosen_on_gpu(record: Record) -> bool:
    return bool(record.get("gpus")) and (record.get("speed") or {}).get("choose_on") == "device"


VARIANTS: Final = (
    Variant(FULL, {}, lambda _: True, PaperRow("Full", 40.0, exact=False)),
    Variant("no-8bit-linears", {"precision": "bfloat16"}, _is_8bit, PaperRow("- INT8 quantization", 27.38)),
    Variant(
        "full-vae",
        {"vae_pruning": 0.0},
        lambda record: bool(record.get("vae_pruning")),
        PaperRow("- MG-LightVAE", 25.79),
    ),
    Variant("cpu-retrieval", {"choose_on": "cpu"}, _is_chosen_on_gpu, PaperRow("- GPU retrieval", 6.60)),
    Variant("no-graphs", {"graphs": False}, _speed("graphs")),
    Variant("no-overlap", {"overlap": False}, _speed("overlap")),
    Variant("no-compile", {"compile": False}, _speed("compiled")),
    Variant("joint", {"attention": "joint"}, lambda record: record.get("attention") != "joint"),
    Variant("16-bit-attention", {"attention_8bit": False}, _speed("attention_8bit")),
)
NAMES: Final = tuple(variant.name for variant in VARIANTS)


@dataclass(frozen=True)
class Row:
    """What came of a variant: a record, or why there is none."""

    variant: Variant
    record: Record | None = None
    failed: str | None = None
    skipped: str | None = None

    @property
    def fps(self) -> float | None:
        return None if self.record is None else float(self.record["fps"])


def chosen(names: Sequence[str]) -> tuple[Variant, ...]:
    """Variants by name, the full one always first; ConfigError for an unknown name."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ConfigError("unknown variant", expected=", ".join(NAMES), got=", ".join(unknown))
    return tuple(variant for variant in VARIANTS if variant.name == FULL or variant.name in names)


def ablate(
    args: Namespace,
    variants: Sequence[Variant],
    run: Callable[[Namespace, str], Record],
    done: Callable[[list[Row]], None] = lambda _: None,
) -> list[Row]:
    """Runs the variants of one command line.

    run: measures a command line under a variant's name. done: is called with all rows so far after each.
    """
    rows: list[Row] = []
    for variant in variants:
        rows.append(_row(args, variant, rows[0].record if rows else None, run))
        done(rows)
    return rows


def _row(
    args: Namespace, variant: Variant, full: Record | None, run: Callable[[Namespace, str], Record]
) -> Row:
    if full is not None and not variant.there(full):
        return Row(variant, skipped="the full configuration does not have it")
    try:
        return Row(variant, run(Namespace(**{**vars(args), **variant.options}), variant.name))
    except WorldwireError as error:
        return Row(variant, failed=str(error))


# ---------------------------------------------------------------------- what comes of it


def as_json(rows: Sequence[Row], command: Sequence[str]) -> dict[str, Any]:
    """The JSON of `worldwire bench --ablate`."""
    full = rows[0].fps
    return {
        "command": " ".join(command),
        "rows": [
            {
                "name": row.variant.name,
                "fps": row.fps,
                "drop": _drop(full, row.fps),
                "paper": _paper_facts(row.variant.paper),
                "failed": row.failed,
                "skipped": row.skipped,
                "record": row.record,
            }
            for row in rows
        ],
    }


def _paper_facts(row: PaperRow | None) -> dict[str, Any] | None:
    return None if row is None else {"source": PAPER, "row": row.name, "fps": row.fps, "exact": row.exact}


def table(result: Mapping[str, Any]) -> str:
    """The rows of such a JSON for people, with the paper's beside them."""
    lines = [("variant", "frames/s", "drop", "paper", "")]
    for row in result["rows"]:
        lines.append((row["name"], _number(row["fps"]), _number(row["drop"]), _paper(row), _why_not(row)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _paper(row: Mapping[str, Any]) -> str:
    paper = row["paper"]
    return "" if paper is None else f"{'' if paper['exact'] else '~'}{paper['fps']:g} ({paper['row']})"


def _why_not(row: Mapping[str, Any]) -> str:
    """Why a variant has no figure; "" if it has one."""
    reasons = {"failed": row["failed"], "left out": row["skipped"]}
    return "; ".join(f"{what}: {why}" for what, why in reasons.items() if why is not None)


def check_plot() -> None:
    """MissingExtraError unless plots can be drawn; asked before the long work."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("--plot", "training") from error


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Bars of the frames per second of such a JSON, the paper's as marks, as PNG, SVG or PDF."""
    from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if row["fps"] is not None]
    figure = Figure(figsize=(7, 0.6 + 0.45 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    axes.barh([row["name"] for row in rows], [row["fps"] for row in rows], color="tab:blue", label="measured")
    marks = [(row["paper"]["fps"], row["name"]) for row in rows if row["paper"]]
    if marks:
        axes.plot(*zip(*marks, strict=True), "D", color="tab:orange", label=PAPER)
    axes.invert_yaxis()
    axes.set_xlabel("frames per second")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def _drop(full: float | None, fps: float | None) -> float | None:
    return None if full is None or fps is None else round(full - fps, 3)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
