"""Several processes over loopback are one run: the same losses, rows and checkpoints."""

import contextlib
import csv
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from background import heeding_signals

import jaxad
from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.train.writer import read_metrics

ROOT = Path(__file__).parent.parent.parent
STEPS = 50
#: Of 40 training images in batches of 8; evaluated in batches of 16, the last one padded.
TRAIN, TEST = 40, 37


@pytest.fixture(scope="module")
def npz_root(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("npz"), np.random.default_rng(0)
    for name, count in (("train", TRAIN), ("val", 16), ("test_a", TEST)):
        np.savez(
            root / f"{name}.npz",
            image=rng.uniform(size=(count, 16, 16)).astype("float32"),
            **({"label": np.arange(count) % 2} if name == "test_a" else {}),
        )
    return root


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


#: Logs and scored batches are slowed down: JAX takes up to a second to carry a notice, in which all
#: small updates would be done.
SLOWED = """
import time
from jaxad.detector.restored import RestoredDetector
from jaxad.train.writer import MetricsWriter
write, batches = MetricsWriter.write, RestoredDetector._batches
def write_slowly(*arguments):
    write(*arguments)
    time.sleep(0.2)
def score_slowly(*arguments):
    for batch in batches(*arguments):
        print("a batch is scored", flush=True)
        time.sleep(0.5)
        yield batch
MetricsWriter.write, RestoredDetector._batches = write_slowly, score_slowly
from jaxad.cli import launch
launch()
"""


class Cluster:
    """`count` launched processes with `devices` CPU devices each."""

    def __init__(self, environment, count, devices, *arguments, slowed=False, joined=False):
        address = f"127.0.0.1:{free_port()}"
        self.members = []
        for index in range(count):
            flags = [
                f"--coordinator_address={address}", f"--num_processes={count}",
                f"--process_id={index}", "--heartbeat_seconds=10",
            ]  # fmt: skip
            self.members.append(
                subprocess.Popen(
                    heeding_signals([
                        sys.executable, *(["-c", SLOWED] if slowed else [str(ROOT / "launch.py")]),
                        *arguments, *(flags if count > 1 or joined else []),
                    ]),
                    env=environment
                    | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.members:
            one.kill()
            one.communicate()

    def end(self):
        """Returns (exit code, stdout, stderr) of each process."""
        with self:
            told = [one.communicate(timeout=280) for one in self.members]
            return [(one.returncode, *texts) for one, texts in zip(self.members, told, strict=True)]


# What the transport itself prints, from several threads: a line can begin within another.
GLOO = re.compile(
    r"\[Gloo\]|Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is|[\d:\s]"
)


def arguments(root, workdir, *more):
    return [
        "--config=pchvae:smoke", f"--workdir={workdir}", "--config.data.name=npz",
        f"--config.data.root={root}", "--config.data.image_size=16", "--config.data.batch_size=8",
        "--config.model.depths=(0,0,0,0)", f"--config.train.num_epochs={STEPS * 8 / TRAIN}",
        "--config.train.log_every_steps=1", "--config.train.checkpoint_every_steps=20",
        "--config.evaluate.batch_size=16", "--config.optim.warmup_steps=5", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def fits(launch_environment, npz_root, tmp_path_factory):
    """Returns the folder of a run that was fitted on `count` processes of `devices` devices."""
    made = {}

    def fit(count, devices):
        if (count, devices) not in made:
            workdir = tmp_path_factory.mktemp("fits") / f"{count}x{devices}"
            found = Cluster(launch_environment, count, devices, *arguments(npz_root, workdir)).end()
            assert [code for code, _, _ in found] == [0] * count, found
            for _, out, errors in found[1:]:
                assert not GLOO.sub("", out) and "score" not in errors  # only the first one prints
            made[count, devices] = workdir
        return made[count, devices]

    return fit


def losses(workdir):
    rows = [r for r in read_metrics(workdir / "metrics.jsonl") if "train/loss/model" in r]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["train/loss/model"] for row in rows]


def scores(workdir):
    with (workdir / "eval/test_a/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["id"] for row in rows}) == TEST
    return [row["id"] for row in rows], np.array([float(row["score"]) for row in rows])


def variables(workdir):
    return jax.tree.leaves(jaxad.load(workdir).variables)


def assert_same_run(ours, theirs):
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
    (our_ids, our_scores), (their_ids, their_scores) = scores(ours), scores(theirs)
    assert our_ids == their_ids
    np.testing.assert_allclose(our_scores, their_scores, rtol=1e-4)


def test_two_processes_of_two_devices_are_one_run(fits):
    assert_same_run(fits(2, 2), fits(1, 1))


@pytest.mark.long
def test_one_process_evaluates_as_two_do(fits, launch_environment):
    """The scores of the same checkpoint are identical."""
    together = fits(2, 2)
    before = scores(together)
    found = Cluster(launch_environment, 1, 1, "--mode=evaluate", f"--workdir={together}").end()
    assert found[0][0] == 0, found
    assert scores(together)[0] == before[0]
    np.testing.assert_array_equal(scores(together)[1], before[1])


@pytest.mark.long
def test_four_devices_of_one_process_are_the_same_run(fits):
    assert_same_run(fits(1, 4), fits(1, 1))
    assert_same_run(fits(1, 4), fits(2, 2))


@pytest.mark.long
@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("counts", [(2, 1), (1, 2)], ids=["2 to 1", "1 to 2"])
def test_a_run_goes_on_with_another_number_of_processes(
    counts, mode, fits, launch_environment, npz_root, tmp_path
):
    """All save the same step after a notice to one; another number of processes resumes it."""
    whole = fits(1, 1)
    with Cluster(
        launch_environment, counts[0], 2,
        *arguments(npz_root, tmp_path, "--mode=train", f"--config.parallel={mode}"), slowed=True,
    ) as first:  # fmt: skip
        wait_for_step(first, tmp_path, 5)
        first.members[-1].send_signal(signal.SIGTERM)
        found = first.end()
    assert [code for code, _, _ in found] == [0] * counts[0], found
    assert "SIGTERM: saved step" in found[0][1]
    stopped = jaxad.load(tmp_path).step
    assert 5 <= stopped < STEPS
    found = Cluster(
        launch_environment, counts[1], 2,
        *arguments(npz_root, tmp_path, f"--config.parallel={mode}"),
    ).end()  # fmt: skip
    assert [code for code, _, _ in found] == [0] * counts[1], found
    assert_same_run(tmp_path, whole)
    for ours, theirs in zip(variables(tmp_path), variables(whole), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "index", "codes"),
    [(signal.SIGHUP, 1, [0, 0]), (signal.SIGINT, 0, [1, 0]), (signal.SIGINT, 1, [0, 1])],
)
def test_any_signal_to_one_process_saves_in_all(
    number, index, codes, launch_environment, npz_root, tmp_path
):
    command = arguments(npz_root, tmp_path, "--mode=train")
    with Cluster(launch_environment, 2, 1, *command, slowed=True) as cluster:
        wait_for_step(cluster, tmp_path, 5)
        cluster.members[index].send_signal(number)
        found = cluster.end()
    assert [code for code, _, _ in found] == codes, found
    assert "saved step" in found[0][1]
    assert 5 <= jaxad.load(tmp_path).step < STEPS


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_joined_run_of_one_process_saves_too(number, launch_environment, npz_root, tmp_path):
    """For example a job of one task in SLURM, whose SIGTERM JAX handles."""
    command = arguments(npz_root, tmp_path, "--mode=train")
    with Cluster(launch_environment, 1, 2, *command, slowed=True, joined=True) as cluster:
        wait_for_step(cluster, tmp_path, 5)
        cluster.members[0].send_signal(number)
        ((code, out, _),) = cluster.end()
    assert (code, "saved step" in out) == (1 if number == signal.SIGINT else 0, True)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_an_evaluation_ends_all_and_the_same_command_goes_on(
    number, fits, launch_environment, npz_root, tmp_path
):
    command = arguments(npz_root, tmp_path)
    with Cluster(launch_environment, 2, 1, *command, slowed=True) as cluster:
        while "a batch is scored" not in (line := cluster.members[0].stdout.readline()):
            assert line, cluster.end()
        cluster.members[1].send_signal(number)
        found = cluster.end()
    assert all(code not in (0, None) for code, _, _ in found), found
    assert not any("Traceback" in errors for _, _, errors in found), found
    found = Cluster(launch_environment, 2, 1, *command).end()
    assert [code for code, _, _ in found] == [0, 0], found
    assert_same_run(tmp_path, fits(1, 1))


def wait_for_step(cluster, workdir, step):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert all(one.poll() is None for one in cluster.members), cluster.end()
        rows = read_metrics(workdir / "metrics.jsonl")
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} never came")


@pytest.mark.long
@pytest.mark.parametrize("lost", [0, 1])
def test_if_one_process_dies_the_other_ends_with_the_reason(
    lost, launch_environment, npz_root, tmp_path
):
    with Cluster(
        launch_environment, 2, 2,
        *arguments(npz_root, tmp_path, "--mode=train", "--config.train.num_epochs=4000"),
    ) as cluster:  # fmt: skip
        wait_for_step(cluster, tmp_path, 45)  # a save waits for the one before
        cluster.members[lost].send_signal(signal.SIGKILL)
        found = cluster.end()  # it waits long enough for a heartbeat that is missed after 10 s
    assert found[1 - lost][0] not in (0, None)
    # What comes first: the sum over devices that fails, or the heartbeat that is missed.
    said = found[1 - lost][2]
    assert "failed: the devices do not answer" in said or "service detected fatal errors" in said
    assert "Traceback" not in said
    # What was saved is there, and the same command resumes, here in one process.
    saved = jaxad.load(tmp_path).step
    assert saved >= 20 and saved % 20 == 0


@pytest.mark.long
def test_a_second_run_of_two_processes_is_refused_the_folder(
    launch_environment, npz_root, tmp_path
):
    command = arguments(npz_root, tmp_path, "--mode=train", "--config.train.num_epochs=4000")
    with Cluster(launch_environment, 2, 1, *command) as first:
        wait_for_step(first, tmp_path, 1)
        found = Cluster(launch_environment, 2, 1, *command).end()
    assert found[0][0] == 2 and "another process is using it" in found[0][2]
    assert found[1][0] != 0


def slurm(port, index):
    """The variables of a task of two that srun starts on this machine."""
    return {
        "SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index), "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2",
        "JAX_COORDINATOR_PORT": str(port),
    }  # fmt: skip


@pytest.mark.long
def test_two_tasks_of_slurm_find_each_other(fits, launch_environment, npz_root, tmp_path):
    """Without flags; every loss and variable is that of the run with explicit flags."""
    port, command = free_port(), arguments(npz_root, tmp_path, "--mode=train")
    with contextlib.ExitStack() as stack:
        tasks = [
            stack.enter_context(
                Cluster(launch_environment | slurm(port, index), 1, 2, *command)
            )
            for index in range(2)
        ]  # fmt: skip
        (first,), (second,) = [task.end() for task in tasks]
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "2 processes (SLURM job 77), 4 devices cpu, mesh data=4" in first[1]
    assert "SLURM job 77), 4" not in second[1]
    assert losses(tmp_path) == losses(fits(2, 2))
    for ours, theirs in zip(variables(tmp_path), variables(fits(2, 2)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def join_in_slurm(monkeypatch, index, **flags):
    for name, value in slurm(free_port(), index).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_START_SECONDS", 0)
    monkeypatch.setattr("sys.stdin", None)  # not a terminal, as in a task
    return processes.join(**flags)


@pytest.mark.parametrize(
    ("index", "words"),
    [(0, "process 1 of 2 did not start within 0 s"), (1, "process 0 of 2 does not answer")],
)
def test_the_only_task_that_starts_names_the_missing_one(monkeypatch, capsys, index, words):
    with pytest.raises(UserError, match=f"^{words}.*--cluster=none"):
        join_in_slurm(monkeypatch, index)
    assert f"process {index} of 2 (SLURM job 77): waiting for the others" in capsys.readouterr().err


def test_flags_take_precedence_over_what_is_found(monkeypatch):
    assert join_in_slurm(monkeypatch, 1, cluster="none") == ""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=f"nothing listens at {address}"):
        join_in_slurm(monkeypatch, 1, coordinator_address=address)
    with pytest.raises(UserError, match="processes 1, 2 of 3 did not start"):
        join_in_slurm(monkeypatch, 1, num_processes="3", process_id="0")


def test_a_script_of_slurm_without_srun_is_one_process(monkeypatch, capsys):
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    for name, value in slurm(1, 0).items():
        if "STEP" not in name:
            monkeypatch.setenv(name, value)
    assert processes.join() == ""
    assert "not started with srun" in capsys.readouterr().err


@pytest.mark.long
def test_two_processes_compute_the_same_from_images_on_disk(
    launch_environment, data_root, tmp_path
):
    evaluated = {}
    for name, more in (("memory", ()), ("disk", ("--config.data.in_memory=1e-6",))):
        workdir = tmp_path / name
        cluster = Cluster(
            launch_environment, 2, 1, "--config=pchvae:smoke", f"--workdir={workdir}",
            f"--config.data.root={data_root}", *more,
        )  # fmt: skip
        ended = cluster.end()
        assert [code for code, _, _ in ended] == [0, 0], ended
        assert ("pixels are read from disk" in ended[0][1]) == (name == "disk")
        files = [*workdir.glob("eval/*/*"), workdir / "checkpoints/10/digests/metadata"]
        evaluated[name] = {path.relative_to(workdir): path.read_bytes() for path in files}
    assert evaluated["disk"] == evaluated["memory"] and len(evaluated["disk"]) >= 7
