"""Which processes an environment describes; no cluster is needed."""

import io
import os
import subprocess
import urllib.error

import pytest

from jaxad.errors import UserError
from jaxad.runtime import clusters
from jaxad.runtime.clusters import Around, detect, first_host, local_devices

# Variables that srun sets in the third of 4 tasks, in a job that has 8.
STEP = {
    "SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip
# A script of sbatch without srun, and a shell of salloc on a login node.
SCRIPT = {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
LOGIN = {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu[07-08]"}
GKE = {"TPU_WORKER_HOSTNAMES": "a.tpu,b.tpu", "TPU_WORKER_ID": "1", "TPU_SKIP_MDS_QUERY": "true"}
JOB = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
JOBSET = JOB | {"JAX_NUM_PROCESSES": "4", "JAX_COORDINATOR_ADDRESS": "run-0.run"}


def tpu(attributes, **variables):
    """A TPU VM whose metadata server has these attributes."""
    return Around(variables, has_tpu=True, attribute=attributes.get)


POD = {"agent-worker-number": "1", "worker-network-endpoints": "u:0:10.0.0.5,u:1:10.0.0.6"}
#: A port in [61440, 65536) by the job: 61440 + 1234.
SLURM_PORT = 62674


@pytest.mark.parametrize(
    ("here", "source", "count", "index", "address"),
    [
        (Around(STEP), "SLURM job 1234", 4, 2, f"gpu07:{SLURM_PORT}"),
        # srun in a shell of srun --pty, whose variables it passes on.
        (Around(STEP | {"SLURM_PTY_PORT": "1"}), "SLURM job 1234", 4, 2, f"gpu07:{SLURM_PORT}"),
        (Around(STEP | {"JAX_COORDINATOR_PORT": "9"}), "SLURM job 1234", 4, 2, "gpu07:9"),
        (Around(STEP | {"JAX_COORDINATOR_ADDRESS": "a:9"}), "SLURM job 1234", 4, 2, "a:9"),
        (Around(GKE), "TPU slice", 2, 1, "a.tpu:8482"),
        (
            Around(GKE | {
                "MEGASCALE_NUM_SLICES": "3", "MEGASCALE_SLICE_ID": "2",
                "MEGASCALE_COORDINATOR_ADDRESS": "c.tpu:8080",
            }),
            "3 TPU slices", 6, 5, "c.tpu:8482",
        ),
        (tpu(POD, TPU_ACCELERATOR_TYPE="v5e-8"), "TPU slice v5e-8", 2, 1, "10.0.0.5:8482"),
        (tpu(POD | {"worker-network-endpoints": "h0,h1"}), "TPU slice", 2, 1, "h0:8482"),
        (
            tpu(POD | {"tpu-env": "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\nX: ''"}),
            "2 TPU slices", 4, 3, "10.0.0.5:8482",
        ),
        (Around(JOBSET), "Kubernetes job", 4, 3, "run-0.run:8476"),
        (Around(JOBSET | {"JAX_PROCESS_ID": "1"}), "Kubernetes job", 4, 1, "run-0.run:8476"),
    ],
    ids=["srun", "srun-in-pty-shell", "port", "address", "gke-tpu", "gke-slices", "tpu-pod",
         "tpu-pod-hosts", "tpu-slices", "jobset", "jobset-id"],
)  # fmt: skip
def test_several_processes_are_found(here, source, count, index, address):
    assert detect(here) == clusters.Processes(source, count, index, address)


def test_steps_of_one_job_that_run_side_by_side_do_not_meet():
    """`srun ... & srun ... & wait`: their first tasks may be on one machine."""
    addresses = {detect(Around(STEP | {"SLURM_STEP_ID": str(step)})).address for step in range(9)}
    assert len(addresses) == 9


def test_a_command_in_a_shell_of_srun_has_a_terminal(monkeypatch):
    """With nohup, or in a loop that reads a list, its standard input is none."""
    monkeypatch.setattr("sys.stdin", None)
    other_end, terminal = os.openpty()
    with subprocess.Popen(["sleep", "60"], stdin=terminal) as shell:
        assert clusters._has_terminal({"SLURM_TASK_PID": str(shell.pid)})
        shell.kill()
    os.close(terminal)
    os.close(other_end)
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as task:
        assert not clusters._has_terminal({"SLURM_TASK_PID": str(task.pid)})
        task.kill()
    assert not clusters._has_terminal({})


@pytest.mark.parametrize(
    ("here", "source", "note"),
    [
        (Around({}), "describes no other", ""),
        (Around(SCRIPT), "not started with srun", "SLURM job 1234 has 8 tasks, but"),
        (Around(LOGIN), "not started with srun", "SLURM job 1234 has 8 tasks, but"),
        (Around(LOGIN | {"SLURM_NTASKS": "1"}), "not started with srun", ""),
        # The variables of the job are inherited by the shell that salloc starts on a node.
        (Around(STEP | {"SLURM_STEP_NUM_TASKS": "1"}), "the only task", ""),
        (Around(STEP, has_terminal=True), "an interactive shell", ""),
        # Colab and Kaggle; GKE with one host; a TPU VM; one without a metadata server.
        (Around(GKE | {"TPU_WORKER_HOSTNAMES": "localhost"}, has_tpu=True), "a single TPU", ""),
        (Around({"TPU_PROCESS_ADDRESSES": "local"}, has_tpu=True), "a single TPU", ""),
        (tpu(POD | {"worker-network-endpoints": "u:0:10.0.0.5", "agent-worker-number": "0"}),
         "a single TPU", ""),
        (tpu({}), "a TPU without other workers", ""),
        (tpu(POD, TPU_SKIP_MDS_QUERY="1"), "describes no other", ""),
        (tpu(POD, JAX_PLATFORMS="cpu"), "describes no other", ""),
        (tpu(POD, TPU_VISIBLE_CHIPS="0"), "TPU_VISIBLE_CHIPS selects", ""),
        (Around({}, attribute=POD.get), "describes no other", ""),
        (Around(JOB), "does not know the others", "pod 3 of a Kubernetes job"),
        (Around(JOB | {"JOB_COMPLETION_INDEX": "0"}), "describes no other", ""),
        (Around({"JAX_NUM_PROCESSES": "1"} | STEP), "JAX_NUM_PROCESSES=1", ""),
        (Around({"OMPI_COMM_WORLD_SIZE": "4"}), "mpirun", "pass --cluster=ompi"),
    ],
    ids=["laptop", "sbatch-without-srun", "login-node", "login-node-one-task", "one-task-step",
         "pty-shell", "colab", "kaggle", "tpu-vm", "tpu-no-metadata", "tpu-skip", "tpu-cpu",
         "tpu-chips", "no-tpu", "k8s-job", "k8s-first", "declared-one", "mpirun"],
)  # fmt: skip
def test_all_else_is_one_process(here, source, note):
    found = detect(here)
    assert (found.count, found.index, found.address) == (1, 0, "")
    assert source in found.source
    assert note in found.note and bool(note) == bool(found.note)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (STEP | {"SLURM_PROCID": "x"}, r"^\$SLURM_PROCID: 'x' is not a whole number; .*none"),
        (STEP | {"SLURM_PROCID": "4"}, "^SLURM job 1234: process 4 is not one of 0 to 3; .*none"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "names 2 hosts: TPU_WORKER_ID is missing; set it"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS is missing; set it too, or pass"),
        (
            {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "a"},
            "JAX_PROCESS_ID is missing; set it too",
        ),
    ],
)
def test_contradictions_are_errors(environment, words):
    with pytest.raises(UserError, match=words):
        detect(Around(environment))


def test_a_named_cluster_must_be_there():
    with pytest.raises(UserError, match=r"^--cluster=slurm: .*: SLURM_JOB_ID is not set"):
        detect(Around(GKE), "slurm")
    assert detect(Around(GKE | STEP), "slurm").source == "SLURM job 1234"


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"), ("n1,n2", "n1"), ("n[001-015],h2", "n001"), ("n[3,7-9]", "n3"),
        ("rack[2-3]-gpu[07,09]-ib,n1", "rack2-gpu07-ib"),
    ],
)  # fmt: skip
def test_first_host_of_a_slurm_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, [1]),  # as JAX does: the number of GPUs is unknown
        ({"SLURM_GPUS_ON_NODE": "8"}, [4, 5, 6, 7]),
        ({"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [4, 5, 6, 7]),
        ({"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, [1]),
        # SLURM shows each task its own GPUs (--gpus-per-task).
        ({"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0"}, None),
        ({"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1"}, None),  # alone on its node: all GPUs
        ({"JAX_LOCAL_DEVICE_IDS": "3"}, None),
    ],
)
def test_gpus_of_a_slurm_task(variables, devices):
    assert local_devices(STEP | {"SLURM_LOCALID": "1"} | variables) == devices


def test_gpus_outside_slurm():
    assert local_devices({}) is None
    assert local_devices(SCRIPT) is None


@pytest.mark.parametrize(
    ("answers", "value", "asked"),
    [
        ([b"7"], "7", 1),
        ([404], None, 1),  # there is no such attribute
        ([503, b"7"], "7", 2),
        ([OSError("no route"), OSError("no route"), OSError("no route")], None, 3),
    ],
    ids=["answer", "missing", "busy", "nobody"],
)
def test_metadata_server(monkeypatch, answers, value, asked):
    left = list(answers)

    class Opener:
        def open(self, request, timeout):
            assert request.get_header("Metadata-flavor") == "Google" and timeout
            assert request.full_url.endswith("/attributes/agent-worker-number")
            answer = left.pop(0)
            if isinstance(answer, int):
                raise urllib.error.HTTPError(request.full_url, answer, "", None, None)
            if isinstance(answer, OSError):
                raise answer
            return io.BytesIO(answer)

    monkeypatch.setattr(clusters.urllib.request, "build_opener", lambda *_: Opener())
    monkeypatch.setattr(clusters.time, "sleep", lambda _: None)
    assert clusters._attribute("agent-worker-number") == value
    assert len(answers) - len(left) == asked
