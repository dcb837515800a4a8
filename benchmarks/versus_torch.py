"""Compares jaxad with PyTorch: the same network, losses, optimiser and shapes, in turn.

    pip install -e '.[benchmark]' && python benchmarks/versus_torch.py --system=all

It first checks that both sides compute the same with the same weights and have as many parameters
(`agreement.py`). Each side is a process of its own; measurements alternate between sides, with a
pause in which the other side's threads go to sleep, and ratios are those of pairs. PyTorch runs in
its best CPU setting: channels last, every core, its fused Adam, inference mode for scores, no batch
norm in a frozen encoder; once as it is (eager) and once with `torch.compile`, which needs a C++
compiler. jaxad is compared with the faster of the two. Images are noise in memory, without
augmentation.

- `train`: an update of one batch. Where networks alternate (f-AnoGAN), each kind of update is
  measured, and `train` is a run in which each has its share of `config.train.updates`.
- `fit`: the whole fit of `--fit_images` images. The fits of PaDiM and PatchCore also have a part
  that does not grow with the number of images.
- `share of the matrix product`: the operations of an update from features, as XLA counts jaxad's,
  per second, as a share of those of the fastest side's product of two matrices.
- Peaks of memory (the largest resident set) and the time to the first update, from the end of the
  imports, come from fresh processes; with an empty and with a filled cache of programs.

Before and after every block of measurements all sides sleep for two seconds. If other processes use
more than 10 % of the processor meanwhile, the block is void: the table says so, and a run that
continues from `--output` measures it again.

On a shared machine, processor time on one core is more reliable than wall time:
`taskset -c 0 python benchmarks/versus_torch.py --clock=cpu --devices=1 --fresh_repeats=0`.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from typing import Any

import sides
from measuring import Measurement
from result_rows import COLUMNS, Output, Row
from sides import Side, SideError

from jaxad.runtime.huge_pages import restart_with_huge_pages

_SYSTEMS = (
    "pchvae", "chvae", "highvae", "lowvae", "vqvae2", "ae", "fanogan", "ganomaly", "aeflow",
    "fastflow", "differnet", "padim", "patchcore",
)  # fmt: skip


#: Configs whose encoder is Wide-ResNet-50-2.
_LARGE_ENCODERS = tuple(
    f"{name}:paper" for name in ("aeflow", "fastflow", "differnet", "padim", "patchcore")
)


def _config_changes(system: str, options: Any) -> dict[str, Any]:
    changes = {
        "data.batch_size": options.batch_size,
        "evaluate.batch_size": options.score_batch_size,
        "data.image_size": options.size,
        "model.subnet": options.subnet,
        # The weights of Wide-ResNet-50-2 need a download.
        "model.weights": "random" if system in _LARGE_ENCODERS else "",
        "data.channels": 1,
        "cpu_devices": options.devices or int(options.device == "cuda"),
    }
    return {name: value for name, value in changes.items() if value}


def _make_sides(options: Any, cpu_devices: int) -> dict[str, Side]:
    """Returns the sides in the order of the columns."""
    modes = {"PyTorch eager": "", "PyTorch compiled": options.compile}
    made = {
        name: Side(0, mode, options.device, options.clock)
        for name, mode in modes.items()
        if mode != "none"
    }
    return made | {"jaxad": Side(cpu_devices, "", options.device, options.clock)}


def measure_system(system: str, options: Any, output: Output) -> Iterator[tuple[str, Row | None]]:
    """Yields the lines of a system's rows, each with its row; the first line is the heading."""
    changes = _config_changes(system, options)
    settings = {
        "system": system, "changes": changes, "cores": len(os.sched_getaffinity(0)),
        "versions": [importlib.metadata.version(name) for name in ("torch", "jax")],
        **{name: value for name, value in vars(options).items()
           if name not in ("system", "output", "only")},
    }  # fmt: skip
    done, heading = output.done(settings)
    if heading:
        yield f"| {heading} |{' |' * 6}", None
        yield from ((row.text(), row) for row in done.values())
        return
    case = sides.answer(sides.make_case, system, changes, options.fit_images)
    made = _make_sides(options, case.config["cpu_devices"])
    heading = (
        f"**{system}**, {case.config['data']['image_size']} px, batches of {case.batch_size} and "
        f"{case.score_batch_size}, CPU devices: {made['jaxad'].devices}"
    )
    yield f"| {heading} |{' |' * 6}", None
    is_complete = True
    for row in Measurement(case, made, options, done).rows():
        is_complete &= not (row.void or row.failed)
        if row.name not in done:
            output.write(settings, row=dataclasses.asdict(row))
        yield row.text(), row
    if is_complete and not options.only:
        output.write(settings, complete=heading)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--system", default="all", help="`all`, or configs separated by commas; the paper's size "
        "is <system>:paper")  # fmt: skip
    add(
        "--output", default="", help="file of the results as lines of JSON; a run continues from it"
    )
    add("--batch_size", type=int, default=0, help="of training; 0: the config's")
    add("--score_batch_size", type=int, default=0, help="0: the config's")
    add("--size", type=int, default=0, help="of images; 0: the config's")
    add("--fit_images", type=int, default=1024, help="images of a fit")
    add("--subnet", default="", choices=("", "conv", "resnet"), help="of flows")
    add("--devices", type=int, default=0, help="jaxad's CPU devices; 0: the config's")
    add("--compile", default="default", choices=("none", "default", "max-autotune-no-cudagraphs"),
        help="mode of torch.compile; none: only eager PyTorch")  # fmt: skip
    add("--device", default="cpu", choices=("cpu", "cuda"), help="of PyTorch; JAX takes what it "
        "finds. cuda: training with TF32, cuDNN choosing among its kernels")  # fmt: skip
    add("--clock", default="wall", choices=list(sides.CLOCKS), help="cpu: processor time of a "
        "side's process, of one core (see above)")  # fmt: skip
    add("--repeats", type=int, default=5)
    add("--fresh_repeats", type=int, default=3, help="of fresh processes; 0: none")
    add("--only", default="", help="one of the tasks, or fresh: what fresh processes need")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    systems = _SYSTEMS if options.system == "all" else options.system.split(",")
    output = Output(options.output)
    print(
        f"{options.device}, {len(os.sched_getaffinity(0))} cores, {options.clock} clock, load "
        f"before: {os.getloadavg()[0]:.1f}\n\n| | {' | '.join(COLUMNS)} | ratio | min | max |\n"
        f"|{'---|' * 7}",
        flush=True,
    )
    notes: list[str] = []
    for system in systems:
        try:
            for line, row in measure_system(system, options, output):
                print(line, flush=True)
                notes += row.notes(system) if row else []
        except SideError as error:
            print(f"| **{system}**, not measured |{' |' * 6}", flush=True)
            notes.append(f"- {system}: not measured: {error}")
    print("\n" + "\n".join(notes))
    if notes:  # something was not measured, failed or is void
        sys.exit(1)


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
