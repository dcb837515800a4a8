"""The limit on queued programs, and the watchdog that warns about a hang."""

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.runtime import parallel, watchdog
from jaxad.runtime.parallel import make_parallel, num_cores, warn_of_crowded_cpu
from jaxad.runtime.watchdog import Watchdog

COUNT = 12


def slow(state, batch):
    """About 10 ms of work on every device; the result depends on the previous call."""
    matrix = jnp.ones((256, 256)) / 256 + state["count"] * 0
    matrix = jax.lax.fori_loop(0, 10, lambda _, product: product @ matrix, matrix)
    return {"count": state["count"] + 1}, {"sum": matrix.sum() + batch["x"].sum()}


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_few_programs_are_queued_at_once(mode):
    devices = make_parallel(mode)
    update = devices.compile_reduce(slow, donate_state=True)
    state = devices.put_replicated({"count": np.float32(0)})
    batch = devices.put_batch({"x": np.zeros(len(devices.devices), np.float32)})
    results, busy = [], 0
    for _ in range(COUNT):
        state, metrics = update(state, batch)
        results.append(metrics["sum"])
        busy += not results[-1].is_ready()
        # On the CPU, the platform of the tests, two may be queued.
        assert all(result.is_ready() for result in results[:-2])
    assert busy  # otherwise there was nothing to wait for
    assert devices.get_replicated(state)["count"] == COUNT
    assert all(result.is_ready() for result in results)


def test_threads_may_share_the_devices():
    devices = make_parallel("jit")
    score = devices.compile_per_example(lambda state, batch: batch["x"] * 2)
    count = len(devices.devices)

    def scores(number):
        batch = devices.put_batch({"x": np.full(count, number, np.float32)})
        return devices.get_per_example(score({}, batch))

    with ThreadPoolExecutor(4) as pool:
        for number, result in enumerate(pool.map(scores, range(40))):
            np.testing.assert_array_equal(result, np.full(count, 2 * number))


def test_deleted_results_are_not_waited_for():
    devices = make_parallel("jit")
    score = devices.compile_per_example(lambda state, batch: batch["x"] * 2)
    for _ in range(5):
        batch = devices.put_batch({"x": np.zeros(len(devices.devices), np.float32)})
        score({}, batch).delete()
    devices.in_flight.wait()


def test_a_lowered_program_is_that_of_the_call():
    devices = make_parallel("jit")
    score = devices.compile_per_example(lambda state, batch: batch["x"] * state["scale"])
    state = devices.put_replicated({"scale": np.float32(3)})
    batch = devices.put_batch({"x": np.ones(len(devices.devices), np.float32)})
    np.testing.assert_array_equal(
        score.lower(state, batch).compile()(state, batch), score(state, batch)
    )


# --- The watchdog, on a clock that the test sets.


@pytest.fixture
def clock(monkeypatch):
    """The watchdog's clock, in seconds; its thread is not started."""
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watchdog.threading.Thread, "start", lambda self: None)
    return now


def wait(dog, clock, seconds):
    with dog.waiting():
        clock[0] += seconds
        dog.check()


def test_the_usual_wait_is_not_reported(clock, capsys):
    dog = Watchdog("Try this.")
    wait(dog, clock, 500)  # the first one, whose usual time is unknown
    for _ in range(3):
        wait(dog, clock, 2)
    wait(dog, clock, 29)  # less than half a minute is never late
    assert capsys.readouterr().err == ""


def test_a_late_result_is_reported_once_and_so_is_its_arrival(clock, capsys):
    dog = Watchdog("Try this.")
    for _ in range(3):
        wait(dog, clock, 2)
    with dog.waiting():
        clock[0] += 39  # 20 times the usual 2 s are 40 s
        dog.check()
        assert capsys.readouterr().err == ""
        clock[0] += 2
        dog.check()
        line = "warning: no result from the devices for 41 s (usually 2.0 s). Try this.\n"
        assert capsys.readouterr().err == line
        clock[0] += 100
        dog.check()
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "warning: the devices resumed after 141 s.\n"
    wait(dog, clock, 2)
    assert capsys.readouterr().err == ""


def test_the_first_result_has_ten_minutes(clock, capsys):
    dog = Watchdog("Try this.")
    with dog.waiting():
        clock[0] += 601
        dog.check()
        assert "no result from the devices for 601 s. Try this." in capsys.readouterr().err


def test_its_thread_reports_while_the_waiting_one_is_stuck(monkeypatch, capsys):
    monkeypatch.setattr(watchdog, "_FIRST_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_PERIOD", 0.02)
    with Watchdog("Try this.").waiting():
        time.sleep(0.5)
    printed = capsys.readouterr().err
    assert "no result from the devices for 0 s. Try this." in printed
    assert "resumed after" in printed


def test_its_thread_ends_with_it(monkeypatch):
    monkeypatch.setattr(watchdog, "_PERIOD", 0.01)
    dog = Watchdog("")
    with dog.waiting():
        thread = dog._thread
        assert thread is not None and thread.is_alive() and thread.daemon
    reference = weakref.ref(dog)
    del dog
    gc.collect()
    deadline = time.monotonic() + 5
    while reference() is not None or thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- More devices than cores.


def test_more_cpu_devices_than_cores_are_warned_about(monkeypatch, capsys):
    devices = jax.local_device_count()
    monkeypatch.setattr(parallel, "num_cores", lambda: devices)
    warn_of_crowded_cpu()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(parallel, "num_cores", lambda: devices - 1)
    warn_of_crowded_cpu()
    printed = capsys.readouterr().err
    assert f"{devices} CPU devices share {devices - 1} core" in printed
    assert f"use at most {devices - 1} (config.cpu_devices)" in printed


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda process: {3, 5, 7})
    assert num_cores() == 3  # not those of the machine
