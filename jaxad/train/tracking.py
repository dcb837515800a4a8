"""Tracking of runs by Weights & Biases or MLflow, in processes beside training.

A service that fails, hangs or cannot be reached costs a warning and nothing else: the rows are in
`metrics.jsonl`, and the next command in the same folder sends what the service lacks.
"""

import contextlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from jaxad.errors import UserError, first_line
from jaxad.runtime import interrupts, processes
from jaxad.storage.workdir import Workdir
from jaxad.train.tracking_process import FINISH_SECONDS, WARNING
from jaxad.train.tracking_services import SERVICES, Service

logger = logging.getLogger(__name__)

#: Code of the process that sends: it has this process's path of modules, and not the folder's.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from jaxad.train.tracking_process import main; main(*sys.argv[2:])"
)
#: Seconds to wait for the last rows after a signal. The process goes on by itself.
_AFTER_SAVE, _AFTER_SIGNAL = 10.0, 2.0
#: Seconds after which a message tells what the command waits for.
_QUIET_SECONDS = 3.0
#: Services that were late once; the other runs of a study wait for them as briefly as after a save.
_late: set[str] = set()


def services(config: ConfigDict) -> list[Service]:
    """Returns the tracking services that `config.train.writers` names."""
    return [SERVICES[name] for name in dict.fromkeys(config.train.writers) if name in SERVICES]


def check(config: ConfigDict) -> None:
    """Raises a UserError if the package of a service is not installed."""
    for service in services(config):
        if problem := _find_missing(service):
            raise UserError(problem)


def _find_missing(service: Service) -> str:
    """Returns what to install for a service; "" if it is installed."""
    spec = importlib.util.find_spec(service.name)
    if spec is not None and spec.origin is not None:  # a folder `wandb` has no origin
        return ""
    return (
        f"config.train.writers: {service.title} needs the package '{service.name}'; install it "
        f"with pip install 'jaxad[{service.name}]', or leave it out."
    )


@contextlib.contextmanager
def tracked(configs: Sequence[ConfigDict], workdirs: Sequence[Workdir]) -> Iterator[None]:
    """Sends what the block writes to each run's folder to the services that its config names.

    Only the first of several processes sends; every process must call it. The end of the block
    waits for at most `FINISH_SECONDS`, or shortly after a signal.
    """
    followers: list[_Follower] = []
    if processes.is_first():
        for config, workdir in zip(configs, workdirs, strict=True):
            followers += _start(config, workdir)
    status, seconds = "FAILED", FINISH_SECONDS
    try:
        yield
        status = "FINISHED"
        if interrupts.requested():  # a study returns after a save
            status, seconds = "KILLED", _AFTER_SAVE
    except KeyboardInterrupt as error:
        status = "KILLED"
        seconds = _AFTER_SAVE if isinstance(error, interrupts.Stopped) else _AFTER_SIGNAL
        raise
    finally:
        for follower in followers:
            follower.end(status)
        deadline = time.monotonic() + seconds
        for follower in followers:
            follower.wait(deadline, is_interrupted=status == "KILLED")
    if any(services(config) for config in configs):
        # Otherwise the others would wait in JAX's exit, which aborts all after a heartbeat's time.
        processes.barrier("tracked")


def _start(config: ConfigDict, workdir: Workdir) -> Iterator["_Follower"]:
    for service in services(config):
        if problem := _find_missing(service):
            logger.warning(f"{WARNING}{problem}")
            continue
        try:
            yield _Follower(service, workdir)
        except OSError as error:
            _warn(service, first_line(error))


def _warn(service: Service, reason: str) -> None:
    logger.warning(
        f"{WARNING}{service.title}: {reason.rstrip('.')}. The run is not affected; the next "
        "command in the same folder sends what is missing."
    )


class _Follower:
    """A process that sends one run to one service; see `tracking_process.follow`."""

    def __init__(self, service: Service, workdir: Workdir):
        self._service = service
        self._has_warned = False
        folder = workdir.path / "tracking"
        folder.mkdir(exist_ok=True)
        arguments = [json.dumps(sys.path), service.name, str(workdir.path.absolute())]
        with (folder / f"{service.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C and closing terminals do not reach it
            )
        self._messages = threading.Thread(target=self._pass_on, daemon=True)
        self._messages.start()

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                text = line.rstrip()
                if text.startswith(WARNING):
                    self._has_warned = True
                    _warn(self._service, text.removeprefix(WARNING))
                else:
                    logger.info(text)

    def end(self, status: str) -> None:
        """Tells the process how the run ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has failed, and said so
            self._process.stdin.write(f"{status}\n")
            self._process.stdin.close()

    def wait(self, deadline: float, *, is_interrupted: bool) -> None:
        """Waits until everything is sent, or until a time of the monotonic clock.

        A process that is late is ended. But after a signal, also one that arrives during the wait,
        it is left to end by itself.
        """
        start, is_quiet = time.monotonic(), is_interrupted
        if self._service.name in _late:
            deadline = min(deadline, start + _AFTER_SAVE)
        while self._process.poll() is None:
            now = time.monotonic()
            if interrupts.requested() and not is_interrupted:
                is_interrupted, deadline = True, min(deadline, now + _AFTER_SIGNAL)
            if now > deadline:
                if not is_interrupted:
                    self._kill()
                    _late.add(self._service.name)
                    _warn(self._service, f"not everything was sent in {now - start:.0f} s")
                return
            if now - start > _QUIET_SECONDS and not is_quiet:
                is_quiet = True
                seconds = deadline - start
                logger.info(f"waiting for {self._service.title}, for up to {seconds:.0f} s")
            time.sleep(0.05)
        self._messages.join(1.0)
        if self._process.returncode and not self._has_warned:  # a crash of the package, for example
            _warn(self._service, f"the sending process ended with code {self._process.returncode}")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the processes of the package
        self._process.wait()
