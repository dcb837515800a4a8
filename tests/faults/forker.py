"""Runs command lines of jaxad in forked children: what takes seconds is imported once.

Reads a JSON object a line from stdin and answers with one a line: `{"arguments": [...], ...}`
starts a child and gives its process id, `{"wait": id}` waits for it and gives its exit code
(negative: the signal that ended it).
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

# No backend of JAX is started here: its threads would not live on in the children.
import distrax  # noqa: F401
import tensorflow_datasets  # noqa: F401

import jaxad.data.synthetic.icbm_synth
import jaxad.detector.export
import jaxad.run
import jaxad.score.files
import jaxad.study.runner  # noqa: F401
from jaxad import cli

#: What changes files, as Python tells audit hooks of it.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def _watch_changes(folder: str, log: Path, kill_at: int) -> None:
    """Notes changes of files below a folder; ends this process just before the n-th."""
    seen = 0
    log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            is_change = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        else:
            is_change = event in _CHANGES
        if not is_change or isinstance(arguments[0], int):
            return
        path = os.fsdecode(arguments[0])
        if not path.startswith(folder):
            return
        seen += 1
        os.write(log_file, f"{event} {path}\n".encode())
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _child(task: dict[str, Any]) -> int:
    output = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(task["environment"])
    if task["largest_file"]:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["largest_file"], hard))
    if task["setup"]:
        exec(task["setup"], {})  # a fault to inject, as the test wrote it
    if task["below"]:
        changes = Path(task["output"]).with_suffix(".changes")
        _watch_changes(task["below"], changes, task["kill_at"])
    return cli.main(task["arguments"])


def main() -> None:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        if "wait" in task:
            status = os.waitpid(task["wait"], 0)[1]
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)
            continue
        process = os.fork()
        if process == 0:
            code = 99
            try:
                code = _child(task)
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
            finally:
                os._exit(code)
        print(json.dumps({"process": process}), flush=True)
    os._exit(0)  # TensorFlow takes seconds to go


if __name__ == "__main__":
    main()
