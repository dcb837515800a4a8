"""Predicts the time of updates on 1 to 1,024 accelerators from the programs that training compiles.

    python benchmarks/scaling.py --costs costs.json > tables.md
    python benchmarks/scaling.py --validate pchvae ae

The first command compiles every system's updates for eight virtual CPU devices, reads operations,
bytes and all-reduces from the compiled programs and prints the tables of docs/scaling.md. Nothing
is run. `costs.json` keeps the costs; configs in it are not compiled again. The second command times
updates on this machine and compares them with the model in `scaling_model.py`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import scaling_programs
import scaling_tables
import scaling_validation

from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.storage.workdir import write_json

SYSTEMS = (
    "pchvae", "chvae", "highvae", "lowvae", "vqvae2", "ae", "fanogan", "ganomaly", "aeflow",
    "differnet", "fastflow",
)  # fmt: skip
VARIANTS = ("", ":paper")


def collect(path: Path) -> dict[str, Any]:
    """Returns the costs of every config, from the file if it has them."""
    costs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in [system + variant for variant in VARIANTS for system in SYSTEMS]:
        if name not in costs:
            costs[name] = scaling_programs.costs_of(name)
            write_json(path, costs)
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", type=Path, default=Path("scaling_costs.json"))
    parser.add_argument("--validate", nargs="+", metavar="CONFIG")
    options = parser.parse_args()
    if options.validate:
        scaling_validation.run(options.validate)
        return
    jax.config.update("jax_num_cpu_devices", scaling_programs.DEVICES)
    # Costs are counted before machine code is generated, which need not be fast.
    jax.config.update("jax_disable_most_optimizations", True)
    scaling_tables.show(collect(options.costs))


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
