"""Messages: plain lines on the command line, and left to the caller elsewhere."""

import logging
import subprocess
import sys

from jaxad.runtime import messages


def test_messages_are_plain_lines_and_warnings_go_to_stderr(capsys):
    logging.getLogger("jaxad.train").info("100 % of it")
    logging.getLogger("jaxad.train").warning("warning: look")
    logging.getLogger("jaxad.train").debug("details")
    logging.getLogger("another.package").info("not ours")
    assert capsys.readouterr() == ("100 % of it\n", "warning: look\n")


def test_only_one_of_several_processes_prints_what_is_no_warning(capsys):
    with messages.printed():
        messages.print_warnings_only()
        logging.getLogger("jaxad").info("a result")
        logging.getLogger("jaxad").warning("a warning")
    assert capsys.readouterr() == ("", "a warning\n" * 2)  # this test's fixture prints as well
    assert logging.getLogger("jaxad").level == logging.INFO  # as before


CALLER = """
import logging, sys
before = (sys.unraisablehook, sys.stdout, sys.stderr, logging.getLogger("absl").level)
import jaxad
config = jaxad.get_config("lowvae:smoke")
config.data.root = sys.argv[1]
detector = jaxad.fit(config, sys.argv[2])
assert detector.step > 0
assert before == (sys.unraisablehook, sys.stdout, sys.stderr, logging.getLogger("absl").level)
assert logging.getLogger("jaxad").handlers == [] and logging.getLogger("jaxad").level == 0
import jax
assert jax.config.jax_compilation_cache_dir is None
"""


def test_a_fit_in_a_notebook_changes_nothing_of_its_caller(tmp_path, data_root, launch_environment):
    environment = {**launch_environment}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    result = subprocess.run(
        [sys.executable, "-c", CALLER, str(data_root), str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
