"""Draws records of `worldwire bench` beside each other: frames per second, and what a clip's time is made of.

python benchmarks/plot_records.py benchmarks/h200/bench_*int8*.json --plot docs/media/h200_720p.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, FAINT, BUSY, REST = "#222222", "#888888", "#3b6ea5", "#d9a441"
FRAMES_PER_LATENT = 4
ROW_HEIGHT, MARGIN_HEIGHT, WIDTH = 0.55, 1.2, 9.0


def name_of(record: dict[str, Any]) -> str:
    """What was played, in few words."""
    bits = "8-bit attention" if record["speed"]["attention_8bit"] else "16-bit attention"
    new = record["clip_plan"]["new"]
    return f"{record['attention']}, {new} latent{'s' * (new > 1)}, {record['precision']}, {bits}"


def records_of(path: Path) -> list[dict[str, Any]]:
    """The record of a file, or those of an ablation's rows."""
    found = json.loads(path.read_text())
    rows = found.get("rows", [{"record": found}])
    return [row["record"] for row in rows if row["record"]]


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Two panels, a row for each record: frames/s, and a clip's milliseconds for each of its latents."""
    records = sorted(records, key=lambda record: record["fps"])
    names, rows = [name_of(record) for record in records], range(len(records))
    figure, (speed, time) = plt.subplots(
        1, 2, figsize=(WIDTH, MARGIN_HEIGHT + ROW_HEIGHT * len(records)), sharey=True
    )
    speed.barh(rows, [record["fps"] for record in records], color=BUSY, height=0.6)
    for row, record in zip(rows, records, strict=True):
        speed.text(record["fps"] - 0.6, row, f"{record['fps']:.1f}", va="center", ha="right", color="white")
    latents = [record["clip_plan"]["new"] for record in records]
    busy = [record["stages_ms"]["denoise"] / count for record, count in zip(records, latents, strict=True)]
    whole = [1000 * FRAMES_PER_LATENT / record["fps"] for record in records]
    time.barh(rows, busy, color=BUSY, height=0.6, label="denoising, frames may be decoded beside it")
    rest = [max(0.0, all_of - part) for all_of, part in zip(whole, busy, strict=True)]
    time.barh(rows, rest, left=busy, color=REST, height=0.6, label="the rest: decoding alone, or nothing")
    speed.set_yticks(rows, names)
    speed.set_xlabel("frames/s, to a client")
    time.set_xlabel("ms for each new latent (4 frames)")
    time.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    first = records[0]
    figure.suptitle(
        f"{first['preset']}, {first['resolution']}, {first['steps']} steps, one {first['device']}",
        color=INK,
        fontsize=11,
    )
    for axis in (speed, time):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=FAINT, labelcolor=INK, labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path, nargs="+", help="what `worldwire bench --json` wrote")
    parser.add_argument("--plot", type=Path, required=True, metavar="F", help="PNG, SVG or PDF")
    args = parser.parse_args()
    draw([record for path in args.records for record in records_of(path)], args.plot)


if __name__ == "__main__":
    main()
