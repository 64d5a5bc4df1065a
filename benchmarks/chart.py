"""Draws ratios as an SVG: `chart.py FILE.svg`, with rows of `benchmarks.results` as JSON on its standard input.

Run by a python of its own that has matplotlib; knows nothing of this project.
"""

from __future__ import annotations

import json
import sys

import matplotlib.pyplot as plt

MET, MISSED, GOAL = "#2a7f62", "#c0392b", "#555555"
SCALE = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


def main(target: str) -> None:
    """Median, spread and goal of each row, on a scale on which twice and half are equally far from 1."""
    rows = json.load(sys.stdin)
    plt.rcParams["svg.hashsalt"] = "ratios"  # the same numbers are the same file
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.36 * len(rows)), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        colour = MET if row["met"] else MISSED
        axes.plot(
            row["spread"], [place, place], color=colour, linewidth=2.5, alpha=0.45, solid_capstyle="round"
        )
        axes.plot(row["median"], place, "o", color=colour, markersize=7)
        axes.plot(row["goal"], place, "|", color=GOAL, markersize=16, markeredgewidth=2)
    labels = [f"{row['label']}   {row['median']:.3g}  ({row['told']})" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels)
    axes.axvline(1, color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SCALE, [f"{tick:g}" for tick in SCALE])
    told = "ours ÷ the peer's: median and spread of the rounds; | is the goal, green where it is met"
    figure.supxlabel(told, fontsize="medium")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


main(sys.argv[1])
