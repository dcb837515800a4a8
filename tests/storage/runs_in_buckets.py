"""Helpers for tests of run folders in a bucket."""

from jaxad.storage import working_copies
from jaxad.storage.workdir import Workdir


def names(objects):
    """The names of all objects but the lock."""
    return sorted(name for name in objects.find() if not name.startswith(".lock"))


def as_another_process(monkeypatch):
    """Forgets all working copies: the next `Workdir` is that of a new process."""
    monkeypatch.setattr(working_copies, "_copies", {})


def write_step(workdir: Workdir, step: int, text: str = "arrays") -> None:
    """Writes the folder of a checkpoint."""
    folder = workdir.checkpoints / str(step) / "variables"
    folder.mkdir(parents=True)
    (folder / "data").write_text(text)
