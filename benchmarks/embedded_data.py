"""Measures the generation of the embedded data `icbm_synth`: CPU seconds, wall time and load.

    python benchmarks/embedded_data.py --repeats=3

Every repeat is a fresh process with fresh workers. CPU time is that of the process, after the
import of TensorFlow, and of its workers, with their start: unlike wall time it changes little on a
busy machine.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from joblib.externals.loky import get_reusable_executor


def cpu_seconds() -> tuple[float, float]:
    """Returns the CPU seconds of this process and those of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, children = (usage.ru_utime + usage.ru_stime for usage in usages)
    return own, children


def generate_once(image_size: int) -> None:
    """Generates the data in a temporary folder, and prints own, workers' and wall seconds."""
    from jaxad.data.synthetic.icbm_synth import IcbmSynth, make_config
    from jaxad.runtime.cpu_tensorflow import tensorflow

    tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        builder = IcbmSynth(
            config=make_config(image_size), data_dir=folder, file_format="array_record"
        )
        (own, children), start = cpu_seconds(), time.perf_counter()
        builder.download_and_prepare()
        wall = time.perf_counter() - start
        get_reusable_executor().shutdown(wait=True)  # only ended children are counted
    own_after, children_after = cpu_seconds()
    print(own_after - own, children_after - children, wall)


def main() -> None:
    """Runs the repeats one after the other and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        generate_once(arguments.image_size)
        return
    print("| repeat | own CPU s | workers' CPU s | CPU s | wall s | load before |")
    print("|---|---|---|---|---|---|")
    totals = []
    for repeat in range(arguments.repeats):
        load = os.getloadavg()[0]
        command = [sys.executable, __file__, "--once", f"--image_size={arguments.image_size}"]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        own, workers, wall = map(float, result.stdout.split()[-3:])
        totals.append(own + workers)
        print(f"| {repeat} | {own:.1f} | {workers:.1f} | {own + workers:.1f} ", end="")
        print(f"| {wall:.1f} | {load:.1f} |", flush=True)
    print(f"\nmedian: {statistics.median(totals):.1f} CPU seconds")


if __name__ == "__main__":
    main()
