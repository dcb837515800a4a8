"""Errors of the system that reach the command line: one line where the user can do something."""

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
    """Runs a mode that ends in an error of the system; the exit code and what was printed."""
    run_config.write(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))

    def go(number, *name):
        def work(config, workdir):
            raise OSError(number, os.strerror(number), *name)

        run = SimpleNamespace(MODES={"evaluate": work}, configure_process=lambda *_: None)
        monkeypatch.setattr(command, "_import_run", lambda: run)  # what takes seconds
        code = cli.main([f"--workdir={tmp_path}", "--mode=evaluate"])
        return code, capsys.readouterr().err

    return go


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_disk_that_takes_no_more_is_a_run_that_failed(run_into, number):
    assert run_into(number, "a.csv") == (
        1,
        f"failed: 'a.csv': {os.strerror(number)}; what was saved is whole; once the disk takes "
        "more, the same command goes on.\n",
    )


def test_a_full_disk_without_a_name(run_into):
    """As where this command's output goes to a file on it."""
    assert run_into(errno.ENOSPC) == (
        1,
        "failed: a file, or the output of this command: No space left on device; what was saved is "
        "whole; once the disk takes more, the same command goes on.\n",
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST])
def test_what_may_not_be_is_the_user_s_to_mend(run_into, number):
    told = f"{os.strerror(number)}; change that, or name another folder.\n"
    assert run_into(number, "a.csv") == (2, f"error: 'a.csv': {told}")
    assert run_into(number) == (2, f"error: {told}")


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOENT])
def test_others_are_bugs_of_ours_and_not_hidden(run_into, number):
    with pytest.raises(OSError):
        run_into(number)
