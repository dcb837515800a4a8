"""System errors that reach the command line: one line if the user can do something about them."""

import errno
import os
from types import SimpleNamespace

import pytest

from jaxad import cli, command
from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.storage.workdir import Workdir


@pytest.fixture
def run_into(monkeypatch, tmp_path, capsys):
    """Runs a mode that raises a system error; returns the exit code and stderr."""
    run_config.write(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))

    def go(number, *name):
        def work(config, workdir, **flags):
            raise OSError(number, os.strerror(number), *name)

        run = SimpleNamespace(evaluate=work, configure_process=lambda *_: None)
        monkeypatch.setattr(command, "_import_run", lambda: run)  # what takes seconds
        code = cli.main([f"--workdir={tmp_path}", "--mode=evaluate"])
        return code, capsys.readouterr().err

    return go


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk_is_a_failed_run(run_into, number):
    assert run_into(number, "a.csv") == (
        1,
        f"failed: 'a.csv': {os.strerror(number)}; what was saved is intact; once the disk "
        "accepts more data, run the same command to resume.\n",
    )


def test_a_full_disk_without_a_file_name(run_into):
    """The output of the command may go to a file on that disk."""
    assert run_into(errno.ENOSPC) == (
        1,
        "failed: a file, or the output of this command: No space left on device; what was saved is "
        "intact; once the disk accepts more data, run the same command to resume.\n",
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST])
def test_permissions_are_for_the_user_to_change(run_into, number):
    text = f"{os.strerror(number)}; change that, or choose another folder.\n"
    assert run_into(number, "a.csv") == (2, f"error: 'a.csv': {text}")
    assert run_into(number) == (2, f"error: {text}")


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOENT])
def test_other_system_errors_are_bugs_and_keep_their_traceback(run_into, number):
    with pytest.raises(OSError):
        run_into(number)
