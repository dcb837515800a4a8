"""Prints the tables of docs/scaling.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import scaling_model as model

STRONG = (2, 4, 8, 16, 32, 64)
WEAK = (8, 64, 256, 1024)
CRITICAL = (1, 8, 64, 1024)


def show(costs: Mapping[str, Mapping[str, Any]]) -> None:
    works = {name: model.read_work(entry["phases"]) for name, entry in costs.items()}
    check()
    print("## What the programs cost\n")
    show_costs(costs, works)
    for chip in model.CHIPS:
        print(f"\n## {chip.name}\n")
        show_chip(chip, costs, works)
    print("\n## Where scaling stops\n")
    show_critical(works)


def check() -> None:
    """Checks properties of the model that hold for all figures."""
    work = model.Work(1.0, model.Line(0.0, 1e9), model.Line(1e6, 1e6), (1_000_000,), 100)
    counts = [2**power for power in range(11)]
    for chip in model.CHIPS:
        # Latencies alone: with bytes, two chips of a torus may take longer than four, which have
        # more links.
        latencies = [model.all_reduce_seconds(chip, 0, chips) for chips in counts]
        assert latencies[0] == 0 and latencies == sorted(latencies), chip.name
        assert model.strong_efficiency(chip, [work], 64, 1) == 1
        assert all(model.weak_efficiency(chip, [work], 64, chips) <= 1 for chips in counts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in [header, ["---"] * len(header), *rows]:
        print(f"| {' | '.join(row)} |")


def mean(works: Sequence[model.Work], value: Callable[[model.Work], float]) -> float:
    """Returns the mean of a value over the run's updates."""
    return sum(work.share * value(work) for work in works)


def show_costs(
    costs: Mapping[str, Mapping[str, Any]], works: Mapping[str, Sequence[model.Work]]
) -> None:
    rows = []
    for name, entry in costs.items():
        phases = works[name]
        reduced = mean(phases, lambda work: sum(work.all_reduces))
        off = max(
            model.fit_line({int(b): point[what] for b, point in phase["points"].items()})[1]
            for phase in entry["phases"].values()
            for what in ("flops", "bytes")
        )
        rows.append(
            [
                f"`{name}`",
                f"{entry['image_size']}, {entry['batch_size']}",
                digits(entry["parameters"] / 1e6),
                digits(mean(phases, lambda work: work.flops.each) / 1e9),
                digits(mean(phases, lambda work: work.bytes.each) / 1e6),
                digits(mean(phases, lambda work: work.bytes.fixed) / 1e6),
                digits(reduced / 1e6),
                digits(reduced / (4 * entry["parameters"])),
                digits(mean(phases, lambda work: len(work.all_reduces)), 3),
                f"{mean(phases, lambda work: work.kernels):,.0f}",
                "" if ":" in name else f"{off:.1%}",
            ]
        )
    table(
        [
            "config", "side, batch", "parameters, M", "GFLOP per image", "MB per image", "MB fixed",
            "all-reduced, MB", "of the parameters' bytes", "all-reduces", "kernels", "off the line",
        ],
        rows,
    )  # fmt: skip


def show_chip(
    chip: model.Chip,
    costs: Mapping[str, Mapping[str, Any]],
    works: Mapping[str, Sequence[model.Work]],
) -> None:
    rows = []
    for name, entry in costs.items():
        batch, phases = entry["batch_size"], works[name]
        strong = [model.strong_efficiency(chip, phases, batch, chips) for chips in STRONG]
        weak = [model.weak_efficiency(chip, phases, batch, chips) for chips in WEAK]
        rows.append(
            [
                f"`{name}`",
                str(batch),
                digits(1e3 * model.step_seconds(chip, phases, batch, 1)),
                bound(chip, phases, batch),
                *("" if part is None else f"{part:.0%}" for part in strong),
                *(f"{part:.0%}" for part in weak),
            ]
        )
    header = [
        "config",
        "batch",
        "ms on 1",
        "most of it",
        *(f"shared by {chips}" for chips in STRONG),
    ]
    table([*header, *(f"each of {chips:,}" for chips in WEAK)], rows)


def bound(chip: model.Chip, works: Sequence[model.Work], images: int) -> str:
    """Returns what takes most of an update on one chip."""
    seconds = {
        "arithmetic": mean(works, lambda work: work.flops.at(images))
        / chip.peak
        / model.ARITHMETIC,
        "memory": mean(works, lambda work: work.bytes.at(images)) / chip.memory / model.MEMORY,
        "launches": mean(works, lambda work: work.kernels) * chip.launch,
    }
    return max(seconds, key=lambda name: seconds[name])


def show_critical(works: Mapping[str, Sequence[model.Work]]) -> None:
    rows = [
        [
            f"`{name}`",
            *(
                ", ".join(digits(model.critical_images(chip, phases, chips)) for chips in CRITICAL)
                for chip in model.CHIPS
            ),
        ]
        for name, phases in works.items()
    ]
    table(["config", *(chip.name for chip in model.CHIPS)], rows)


def digits(value: float, count: int = 2) -> str:
    """Formats a value with `count` significant digits, without an exponent."""
    rounded = float(f"{value:.{count}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (count - 1) else f"{rounded:.{count}g}"
