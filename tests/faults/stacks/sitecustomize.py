"""On the path of a launched process: SIGUSR1 writes the stacks of all its threads to a file."""

import faulthandler
import os
import signal
from pathlib import Path

if "JAXAD_STACKS" in os.environ:
    # Open for the life of the process.
    stacks = Path(os.environ["JAXAD_STACKS"]).open("a")  # noqa: SIM115
    faulthandler.register(signal.SIGUSR1, stacks)
