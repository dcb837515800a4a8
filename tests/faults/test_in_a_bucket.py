"""Every mode with its folder in a bucket, killed, refused and resumed as on a disk.

A store on this machine stands in for the bucket; `JAXAD_BUCKET_KILLS` is the number of random kills
of the long test.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import emulators
import numpy as np
import pytest

import jaxad
from jaxad.storage import working_copies
from jaxad.storage.buckets import Objects

KILLS = int(os.environ.get("JAXAD_BUCKET_KILLS", "20"))

LONG = pytest.mark.long
#: Both stores, of which one is enough where what differs between them is tested elsewhere.
ONE = ["gs", pytest.param("s3", marks=LONG)]

#: Ends the process at its n-th change of the bucket, before or after half of it has arrived.
KILL = """
import os, signal
from jaxad.storage.buckets import Objects
count = 0
def wrap(name):
    real = getattr(Objects, name)
    def call(self, first, *rest):
        global count
        if self.url.startswith({url!r}) and ".lock" not in str(first):
            count += 1
            if count == {number}:
                if name == "put":
                    real(self, dict(list(first.items())[: len(first) // 2]))
                os.kill(os.getpid(), signal.SIGKILL)
        return real(self, first, *rest)
    setattr(Objects, name, call)
for name in ("put", "delete"):
    wrap(name)
"""


@pytest.fixture(autouse=True)
def no_copies(monkeypatch):
    monkeypatch.setattr(working_copies, "_copies", {})
    monkeypatch.setattr(working_copies, "_FRESH_SECONDS", 0.0)


@pytest.fixture
def run(forker, stores, bucket):
    """Runs a command line with the stores of this machine; checks its exit code."""

    def call(*arguments: object, code: int = 0, **options) -> str:
        cache = os.environ["XDG_CACHE_HOME"]
        ended = forker.run(*arguments, **options, **stores, XDG_CACHE_HOME=cache)
        assert ended.code == code, ended.printed
        assert "Traceback" not in ended.printed, ended.printed
        return ended.printed

    return call


def names(url: str) -> set[str]:
    return set(Objects(url).find())


def checkpoints(url: str) -> set[str]:
    return {name for name in names(url) if name.startswith("checkpoints/")}


def parameters(url: str | Path) -> list[np.ndarray]:
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(jaxad.load(url).variables)]


def check_equal(url: str, folder: Path) -> None:
    for ours, theirs in zip(parameters(url), parameters(folder), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="session")
def fitted(forker, tiny, tmp_path_factory) -> Path:
    """A run on the disk."""
    workdir = tmp_path_factory.mktemp("fitted") / "run"
    ended = forker.run(f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}")
    assert ended.code == 0, ended.printed
    return workdir


@pytest.mark.parametrize("bucket", ONE, indirect=True)
def test_fit_report_export_score_and_calibrate(run, tiny, fitted, bucket, tmp_path):
    url = f"{bucket}/runs/first"
    printed = run(f"--config={tiny / 'tiny.py'}", f"--workdir={url}")
    assert f"report: {url}/report.html" in printed
    assert os.environ["XDG_CACHE_HOME"] not in printed
    check_equal(url, fitted)
    on_disk = {path.relative_to(fitted).as_posix() for path in fitted.glob("[!.]*.*")}
    assert {name for name in names(url) if "/" not in name} == on_disk
    metrics = Objects(url).read("eval/test_squares/metrics.json")
    assert metrics == (fitted / "eval/test_squares/metrics.json").read_bytes()
    assert checkpoints(url) == {
        f"checkpoints/{path.name}.tar" for path in (fitted / "checkpoints").iterdir()
    }
    assert not [name for name in names(url) if ".lock" in name]

    assert "trained already" in run(f"--config={tiny / 'tiny.py'}", f"--workdir={url}")
    run(f"--workdir={url}", "--mode=report", f"--compare={fitted}")
    run(f"--workdir={fitted}", "--mode=report", f"--compare={url}")
    run(f"--workdir={url}", "--mode=export")
    data = Objects(f"{bucket}/data/test_squares.npz")
    data.write("", (tiny / "test_squares.npz").read_bytes())
    for source, number in ((url, 1), (f"{url}/detector.jaxad", 2)):
        run(
            f"--workdir={source}", "--mode=score", f"--input={data.url}",
            f"--output={bucket}/scores/{number}",
        )  # fmt: skip
    found = [Objects(f"{bucket}/scores/{number}") for number in (1, 2)]
    run(
        f"--workdir={fitted}", "--mode=score", f"--input={tiny / 'test_squares.npz'}",
        f"--output={tmp_path / 'scores'}",
    )  # fmt: skip
    expected = (tmp_path / "scores/scores.csv").read_bytes()
    assert found[0].read("scores.csv") == found[1].read("scores.csv") == expected
    run(f"--workdir={url}", "--mode=calibrate", f"--normals={tiny / 'val.npz'}", code=2)  # learnt
    run(f"--config={tiny / 'tiny.py'}", "--mode=inspect", f"--workdir={bucket}/inspected")
    assert {"inspect.json", "inspect.png"} <= names(f"{bucket}/inspected")


@pytest.mark.parametrize("bucket", ONE, indirect=True)
def test_data_in_a_bucket(run, tiny, fitted, bucket):
    for name in ("train", "val", "test_squares"):
        Objects(f"{bucket}/data").write(f"{name}.npz", (tiny / f"{name}.npz").read_bytes())
    run(
        f"--config={tiny / 'tiny.py'}", f"--workdir={bucket}/run",
        f"--config.data.root={bucket}/data",
    )  # fmt: skip
    check_equal(f"{bucket}/run", fitted)


@pytest.mark.long
@pytest.mark.parametrize("bucket", ONE, indirect=True)
def test_a_study(run, tiny, bucket):
    arguments = [f"--config={tiny / 'study.py'}", f"--workdir={bucket}/study", "--mode=study"]
    run(*arguments)
    found = names(f"{bucket}/study")
    assert {"table.md", "table.csv", "study.json"} <= found
    assert any(name.startswith("runs/tiny/seed_1/checkpoints/") for name in found)
    assert "2 of 2 runs are finished" in run(*arguments)


@pytest.mark.parametrize("bucket", ONE, indirect=True)
@pytest.mark.parametrize("number", [3, *(pytest.param(n, marks=LONG) for n in (1, 2, 5, 8))])
def test_a_killed_run_resumes_to_the_same_parameters(number, run, tiny, fitted, bucket):
    url = f"{bucket}/run"
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={url}"]
    run(*arguments, setup=KILL.format(url=url, number=number), code=-signal.SIGKILL)
    printed = run(*arguments)
    assert "taken over from process" in printed
    check_equal(url, fitted)
    assert not [name for name in names(url) if ".lock" in name]
    metrics = Objects(url).read("eval/test_squares/metrics.json")
    assert metrics == (fitted / "eval/test_squares/metrics.json").read_bytes()


@pytest.mark.parametrize("bucket", ONE, indirect=True)
def test_scoring_that_was_killed_resumes(run, tiny, fitted, bucket, tmp_path):
    for path in fitted.rglob("*"):
        if path.is_file() and "checkpoints" not in path.parts:
            name = path.relative_to(fitted).as_posix()
            Objects(f"{bucket}/run").write(name, path.read_bytes())
    run(f"--config={tiny / 'tiny.py'}", f"--workdir={bucket}/run", "--mode=train")
    output = f"{bucket}/scores"
    arguments = [f"--workdir={bucket}/run", "--mode=score"]
    arguments += [f"--input={tiny / 'test_squares.npz'}", f"--output={output}"]
    run(*arguments, setup=KILL.format(url=output, number=1), code=-signal.SIGKILL)
    run(*arguments)
    before = Objects(output).read("scores.csv")
    run(*arguments)  # the tables are those of the same detector
    assert Objects(output).read("scores.csv") == before
    run(
        f"--workdir={fitted}", "--mode=score", f"--input={tiny / 'test_squares.npz'}",
        f"--output={tmp_path / 'scores'}",
    )  # fmt: skip
    assert (tmp_path / "scores/scores.csv").read_bytes() == before


@pytest.mark.parametrize("bucket", ONE, indirect=True)
def test_a_damaged_checkpoint(run, tiny, fitted, bucket):
    """The one before it is used, said aloud."""
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={bucket}/run"]
    run(*arguments, "--mode=train")
    objects = Objects(f"{bucket}/run")
    last = max(checkpoints(objects.url), key=lambda name: int(name[12:-4]))
    content = objects.read(last)
    objects.write(last, content[: len(content) // 2])
    printed = run(*arguments)
    assert f"checkpoint '{objects.url}/{last[:-4]}' is damaged" in printed
    assert "set aside" in printed
    check_equal(objects.url, fitted)
    assert f"{last[:-4]}.damaged.tar" in names(objects.url)


#: Holds the lock until another process was refused.
HOLD = """
import pathlib, time
from jaxad.storage import lease
real = lease._acquire
def acquire(objects):
    found = real(objects)
    end = time.monotonic() + 120
    while not pathlib.Path({path!r}).exists() and time.monotonic() < end:
        time.sleep(0.05)
    return found
lease._acquire = acquire
"""


@pytest.mark.parametrize("bucket", ONE, indirect=True)
def test_of_two_runs_the_second_is_refused(forker, stores, tiny, bucket, tmp_path):
    refused = tmp_path / "refused"
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={bucket}/run", "--mode=train"]
    options = {**stores, "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    first = forker.start(*arguments, setup=HOLD.format(path=str(refused)), **options)
    deadline = time.monotonic() + 120
    while not Objects(f"{bucket}/run/.lock").find():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = forker.run(*arguments, **options)
    refused.touch()
    line = second.only_line(2)
    assert f"workdir '{bucket}/run': another process is using it" in line
    assert forker.finish(first).code == 0


class Launcher:
    """Starts commands as processes of their own, with the stores of this machine."""

    def __init__(self, environment: dict[str, str], tiny: Path, url: str):
        self._environment = environment
        self._command = [
            sys.executable, str(Path(__file__).parents[2] / "launch.py"),
            f"--config={tiny / 'tiny.py'}", f"--workdir={url}",
        ]  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*self._command, *arguments], env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run_two(self, *arguments: str) -> str:
        """Runs two processes as one run; returns what they print."""
        both = [f"--coordinator_address=127.0.0.1:{emulators.free_port()}", "--num_processes=2"]
        children = [self.start(*arguments, *both, f"--process_id={number}") for number in range(2)]
        printed = [child.communicate(timeout=600)[0] for child in children]
        assert [child.returncode for child in children] == [0, 0], printed
        return "".join(printed)


@pytest.fixture
def launcher(launch_environment, stores, tiny, bucket) -> Launcher:
    cache = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    return Launcher(launch_environment | stores | cache, tiny, f"{bucket}/run")


@LONG
@pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)
def test_two_processes_train_as_one_run(launcher, fitted, bucket):
    url = f"{bucket}/run"
    launcher.run_two()
    assert {"report.html", "eval/test_squares/metrics.json"} <= names(url)
    assert jaxad.load(url).step == jaxad.load(fitted).step


@LONG
@pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)
def test_a_preempted_run_resumes_with_another_number_of_processes(launcher, bucket):
    """SIGTERM saves a checkpoint, which is in the bucket when the process ends."""
    url = f"{bucket}/run"
    longer = ["--config.train.num_epochs=1000", "--config.train.checkpoint_every_steps=300"]
    process = launcher.start(*longer)
    deadline = time.monotonic() + 300
    while not checkpoints(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    printed = process.communicate(timeout=120)[0]
    assert process.returncode == 0, printed
    step = re.search(r"SIGTERM: saved step (\d+) of 3000", printed)[1]
    assert f"checkpoints/{step}.tar" in checkpoints(url)
    assert not [name for name in names(url) if ".lock" in name]
    printed = launcher.run_two(*longer)
    assert f"resumed from step {int(step):,} of 3,000" in printed
    assert "checkpoints/3000.tar" in checkpoints(url)


def test_a_bucket_that_cannot_be_used_is_one_line(run, tiny, bucket):
    arguments = [f"--config={tiny / 'tiny.py'}", "--mode=train"]
    missing = bucket.replace("jaxad-test", "no-such-bucket")
    printed = run(*arguments, f"--workdir={missing}", code=2)
    assert f"'{missing}': there is no such bucket; remove the cause" in printed
    printed = run(*arguments, "--workdir=az://a/b", code=2)
    assert "'az://a/b': not a local path and not gs:// or s3://; choose another." in printed


@pytest.mark.long
@pytest.mark.parametrize("bucket", ["gs", "s3"], indirect=True)
def test_random_kills(stores, launch_environment, tiny, bucket, tmp_path):
    """Kills at random moments of a longer run; every one resumes, to the same parameters."""
    command = [
        sys.executable, str(Path(__file__).parents[2] / "launch.py"),
        f"--config={tiny / 'tiny.py'}", "--config.train.num_epochs=3000",
        "--config.train.checkpoint_every_steps=100",
    ]  # fmt: skip
    environment = launch_environment | stores | {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    whole, url = tmp_path / "whole", f"{bucket}/run"
    subprocess.run([*command, f"--workdir={whole}"], env=environment, check=True)
    draw, done, resumed = random.Random(0), 0, 0
    while done < KILLS:
        process = subprocess.Popen(
            [*command, f"--workdir={url}"], env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        before, deadline = checkpoints(url), time.monotonic() + 300
        while checkpoints(url) <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 2))
        process.kill()
        printed = process.communicate()[0]
        if process.returncode == 0:
            check_equal(url, whole)
            url = f"{bucket}/run-{done}"
            continue
        assert process.returncode == -signal.SIGKILL, printed
        done += 1
        resumed += "resumed from step" in printed
        print(f"kill {done}: the bucket has {sorted(checkpoints(url))}", flush=True)
    subprocess.run([*command, f"--workdir={url}"], env=environment, check=True)
    check_equal(url, whole)
    assert resumed > KILLS / 2
