#!/usr/bin/env python3
"""Is this build faster than that one? Runs the same scenario with both, in turn, and compares medians.

    perf/compare-builds.py OLD NEW [--rounds 5] -- private --seconds 5

OLD and NEW are corehub programs (copy target/release/corehub aside before a change). Each round starts a fresh server of
either build and swaps their order; a figure counts as changed only when the two ranges do not overlap.
"""

import argparse
import json
import statistics
import subprocess
import sys


def measure(program, words):
    command = [program, "bench", words[0], "--spawn", "--json", "--rounds", "1", *words[1:]]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {run.returncode}")
    return json.loads(run.stdout)


def main():
    if "--" not in sys.argv:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(sys.argv[1:split])
    words = sys.argv[split + 1:]

    figures, warnings = {}, []
    for round_number in range(options.rounds):
        sides = [("old", options.old), ("new", options.new)]
        for side, program in sides if round_number % 2 == 0 else reversed(sides):
            report = measure(program, words)
            warnings += [f"round {round_number + 1}, {side}: {warning}" for warning in report["warnings"]]
            for name, figure in report["figures"].items():
                if figure["median"] is not None:
                    figures.setdefault(name, {"old": [], "new": []})[side].append(figure["median"])
        print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr)

    print(f"{'figure':<34}{'old':>14}{'new':>14}{'new/old':>10}  ranges")
    for name, values in figures.items():
        if not values["old"] or not values["new"]:
            continue
        old, new = statistics.median(values["old"]), statistics.median(values["new"])
        apart = max(values["old"]) < min(values["new"]) or max(values["new"]) < min(values["old"])
        ratio = f"{new / old:.3f}" if old else "-"
        print(f"{name:<34}{old:>14.2f}{new:>14.2f}{ratio:>10}  {'apart' if apart else 'overlap: no difference shown'}")
    for warning in warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
