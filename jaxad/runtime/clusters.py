"""The processes of a run, as the environment of one of them describes them.

Pure functions of environment variables; `around` collects what they need. JAX has functions for the
same purpose. They wait for processes that do not exist in a SLURM script without srun or in an
interactive shell, and give a SLURM task a single GPU even if it has several.
"""

import dataclasses
import importlib.util
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxad.errors import UserError

Environment = Mapping[str, str]

#: Ports of process 0: JAX's for TPUs, and the default elsewhere.
_TPU_PORT, _PORT = 8482, 8476
#: Ports for SLURM are taken from the numbers of job and step, so that those on one machine differ.
_FIRST_SLURM_PORT, _SLURM_PORTS, _PORTS_BETWEEN_STEPS = 61440, 4096, 509
_ATTRIBUTES = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a run and the place of this one among them.

    Attributes:
        source: what describes them, such as `SLURM job 1234`; for one process, why it is alone.
        count: their number.
        index: the number of this process, from 0.
        address: `host:port` of process 0; empty for one process.
        note: advice to a user who may have meant something else.
    """

    source: str
    count: int = 1
    index: int = 0
    address: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Around:
    """What surrounds a process.

    Attributes:
        environment: the environment variables.
        has_terminal: whether this process runs in an interactive shell.
        has_tpu: whether this machine has a TPU that JAX would use.
        attribute: returns an attribute of a Google Cloud machine by name, None if there is none.
    """

    environment: Environment
    has_terminal: bool = False
    has_tpu: bool = False
    attribute: Callable[[str], str | None] = lambda name: None


def around() -> Around:
    """Returns what surrounds this process; asks no other machine."""
    has_chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    has_tpu = has_chips and importlib.util.find_spec("libtpu") is not None
    return Around(os.environ, _has_terminal(os.environ), has_tpu, _attribute)


def _has_terminal(environment: Environment) -> bool:
    """Tells whether the standard input of this process, or of its SLURM task, is a terminal.

    A command in a shell of `srun --pty` may have another input than the shell, as with nohup.
    """
    if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
        return True
    try:
        task_input = Path(f"/proc/{environment['SLURM_TASK_PID']}/fd/0").readlink()
    except (KeyError, OSError):
        return False
    return str(task_input).startswith(("/dev/pts/", "/dev/tty"))


def detect(here: Around, only: str = "") -> Processes:
    """Decides which processes this one belongs to; one process unless the case is unambiguous.

    Args:
        here: the surroundings of this process.
        only: a name of `RULES`: look only there, and fail if nothing is found.

    Raises:
        UserError: a variable has no usable value, or `only` does not describe this process.
    """
    for name, (rule, needs) in RULES.items():
        if only in ("", name):
            processes = rule(here)
            if processes is not None:
                return processes
            if only:
                raise UserError(f"--cluster={only}: this process is not part of one: {needs}.")
    return Processes("the environment describes no other processes")


def _declared(here: Around) -> Processes | None:
    """Variables that a launcher or a Kubernetes manifest sets for JAX."""
    environment = here.environment
    count, address = _number(environment, "JAX_NUM_PROCESSES"), _address(environment)
    index = _number(environment, "JAX_PROCESS_ID")
    source = "JAX_NUM_PROCESSES"
    if "JOB_COMPLETION_INDEX" in environment:
        index = _number(environment, "JOB_COMPLETION_INDEX") if index is None else index
        source = "Kubernetes job"
    if count is None:
        return None
    if count == 1:
        return Processes("JAX_NUM_PROCESSES=1")
    if not address or index is None:
        missing = "JAX_PROCESS_ID" if address else "JAX_COORDINATOR_ADDRESS"
        raise UserError(
            f"JAX_NUM_PROCESSES={count}: {missing} is missing; set it too, or pass --cluster=none."
        )
    return _several(source, count, index, address)


def _tpu(here: Around) -> Processes | None:
    """A TPU slice with several hosts, on GKE or as TPU VMs."""
    environment = here.environment
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms:
        return None
    for variable in ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"):
        if variable in environment:
            return Processes(f"{variable} selects chips of this machine") if here.has_tpu else None
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices: Environment = environment
    if hosts:
        workers, index = hosts.split(","), _number(environment, "TPU_WORKER_ID")
    elif here.has_tpu and "TPU_SKIP_MDS_QUERY" not in environment:
        number = here.attribute("agent-worker-number")
        endpoints = number and here.attribute("worker-network-endpoints")
        if not number or not endpoints:
            return Processes("a TPU without other workers")
        # Either hosts, or `name:id:ip` of each.
        workers, index = [text.split(":")[-1] for text in endpoints.split(",")], int(number)
        slices = _tpu_variables(here.attribute("tpu-env") or "") | dict(environment)
    else:
        return None
    num_slices = _number(slices, "MEGASCALE_NUM_SLICES") or 1
    if len(workers) * num_slices == 1:
        return Processes("a single TPU host")
    if index is None:
        raise UserError(
            f"TPU_WORKER_HOSTNAMES names {len(workers)} hosts: TPU_WORKER_ID is missing; set it, "
            "or pass --cluster=none."
        )
    index += (_number(slices, "MEGASCALE_SLICE_ID") or 0) * len(workers)
    host = (slices.get("MEGASCALE_COORDINATOR_ADDRESS") or workers[0]).split(":")[0]
    address = _address(environment) or f"{host}:{_port(environment, _TPU_PORT)}"
    name = environment.get("TPU_ACCELERATOR_TYPE", "")
    source = f"TPU slice {name}".rstrip() if num_slices == 1 else f"{num_slices} TPU slices"
    return _several(source, len(workers) * num_slices, index, address)


def _slurm(here: Around) -> Processes | None:
    """A task that srun started; scripts, shells, and login nodes are one process."""
    environment = here.environment
    job = _number(environment, "SLURM_JOB_ID")
    if job is None:
        return None
    nodes, index = environment.get("SLURM_STEP_NODELIST"), _number(environment, "SLURM_PROCID")
    # SLURM_NTASKS may be that of the job, whose other tasks nobody has started.
    count = _number(environment, "SLURM_STEP_NUM_TASKS")
    if not nodes or index is None or count is None:
        tasks = _number(environment, "SLURM_NTASKS") or 1
        note = (
            f"note: SLURM job {job} has {tasks} tasks, but this command was not started with srun: "
            "it runs as one process."
        )
        return Processes("not started with srun", note=note if tasks > 1 else "")
    if count == 1:
        return Processes("the only task of its step")
    if here.has_terminal:  # srun --pty gives the first task one, and the others end
        return Processes("an interactive shell in SLURM")
    step = _number(environment, "SLURM_STEP_ID") or 0
    offset = (job + step * _PORTS_BETWEEN_STEPS) % _SLURM_PORTS
    port = _port(environment, _FIRST_SLURM_PORT + offset)
    address = _address(environment) or f"{first_host(nodes)}:{port}"
    return _several(f"SLURM job {job}", count, index, address)


def _job(here: Around) -> Processes | None:
    """A pod of a Kubernetes job, which does not know how many there are."""
    index = _number(here.environment, "JOB_COMPLETION_INDEX")
    if not index or "KUBERNETES_SERVICE_HOST" not in here.environment:
        return None
    note = (
        f"note: pod {index} of a Kubernetes job runs as one process; to make all pods one run, set "
        "JAX_NUM_PROCESSES and JAX_COORDINATOR_ADDRESS (docs/launching.md)."
    )
    return Processes("a pod that does not know the others", note=note)


def _mpi(here: Around) -> Processes | None:
    """A process of mpirun, which starts programs that know nothing of each other, too."""
    count = _number(here.environment, "OMPI_COMM_WORLD_SIZE") or 1
    if count == 1:
        return None
    note = (
        f"note: mpirun started {count} processes; each is a run of its own. To make them one run, "
        "pass --cluster=ompi."
    )
    return Processes("started by mpirun", note=note)


#: Environments in the order in which they are tried -> their rule, and what it needs.
RULES: Mapping[str, tuple[Callable[[Around], Processes | None], str]] = {
    "env": (_declared, "JAX_NUM_PROCESSES is not set"),
    "tpu": (_tpu, "no TPU and no TPU_WORKER_HOSTNAMES"),
    "slurm": (_slurm, "SLURM_JOB_ID is not set"),
    "job": (_job, ""),
    "mpi": (_mpi, ""),
}


def local_devices(environment: Environment) -> list[int] | None:
    """Returns the GPUs of a SLURM task that shares those of its node; None for all it can see.

    A task that is alone on its node has all, and so has one to which SLURM shows only its own.
    """
    local = _number(environment, "SLURM_LOCALID")
    tasks = _tasks_on_node(environment)
    if local is None or tasks == 1 or "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    on_node = _number(environment, "SLURM_GPUS_ON_NODE") or 0
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("ROCR_VISIBLE_DEVICES")
    count = len(visible.split(",")) if visible else on_node
    if visible and count < max(on_node, tasks):
        return None
    share = max(1, count // tasks)
    return list(range(local * share, (local + 1) * share))


def _tasks_on_node(environment: Environment) -> int:
    """Returns the number of tasks on this node, from text such as `2(x3),1`."""
    tasks: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part):
            tasks += [int(match[1])] * int(match[2] or 1)
    node = _number(environment, "SLURM_NODEID") or 0
    return tasks[node] if node < len(tasks) else 1


def first_host(nodes: str) -> str:
    """Returns the first host of a SLURM list such as `rack[1-2]-gpu[007,9-12],login`."""
    match = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", match[0] if match else nodes)


def _several(source: str, count: int, index: int, address: str) -> Processes:
    if index >= count:
        raise UserError(
            f"{source}: process {index} is not one of 0 to {count - 1}; pass "
            "--coordinator_address, --num_processes, and --process_id, or --cluster=none."
        )
    return Processes(source, count, index, address)


def _number(environment: Environment, name: str) -> int | None:
    """Returns the value of a variable; None if it is not set."""
    text = environment.get(name)
    if not text:
        return None
    if not text.isdecimal():
        raise UserError(
            f"${name}: '{text}' is not a whole number; correct it, or pass --cluster=none."
        )
    return int(text)


def _address(environment: Environment) -> str:
    """Returns the address that JAX_COORDINATOR_ADDRESS names; empty without it."""
    address = environment.get("JAX_COORDINATOR_ADDRESS", "")
    has_port = not address or address.rpartition(":")[2].isdecimal()
    return address if has_port else f"{address}:{_port(environment, _PORT)}"


def _port(environment: Environment, default: int) -> int:
    return _number(environment, "JAX_COORDINATOR_PORT") or default


def _tpu_variables(text: str) -> dict[str, str]:
    """Parses a machine's attribute `tpu-env`, whose lines are `NAME: 'value'`."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip().strip("'") for name, _, value in pairs}


def _attribute(name: str, tries: int = 3) -> str | None:
    """Asks the metadata server of a Google Cloud machine, past any proxy."""
    request = urllib.request.Request(_ATTRIBUTES + name, headers={"Metadata-Flavor": "Google"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for attempt in range(tries):
        try:
            with opener.open(request, timeout=5) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
        except OSError:
            pass
        if attempt < tries - 1:
            time.sleep(1)
    return None
