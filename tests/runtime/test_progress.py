"""Progress without a terminal: plain lines, no carriage returns."""

import os
import re

import pytest

from jaxad.runtime import messages, progress


def test_a_file_gets_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.progress_bar(total=4, initial=1, desc="look", unit="file") as bar:
        bar.update(2)
    out, err = capsys.readouterr()
    line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d look: 3 of 4 files, \S+ per second, \d+ s left\n"
    assert re.fullmatch(line, out) and err == ""
    assert list(progress.progress_bar([1, 2], desc="each")) == [1, 2]
    assert capsys.readouterr().out.count("\n") == 2


def test_a_short_task_has_no_line(capsys):
    assert list(progress.progress_bar(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "can_redraw", lambda: True)
    assert list(progress.progress_bar(range(3), desc="look")) == [0, 1, 2]
    assert "\rlook" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.4, "59 s"), (600.0, "10 min"), (3.0 * 3600 + 290, "3 h 05 min")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(("before", "after"), [(None, "3"), ("1", "3"), ("0", "0"), ("2", "2")])
def test_libraries_are_quiet_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setattr(os, "environ", {} if before is None else {"TF_CPP_MIN_LOG_LEVEL": before})
    messages.quiet_libraries()
    assert os.environ == {"TF_CPP_MIN_LOG_LEVEL": after, "TF_ENABLE_ONEDNN_OPTS": "0"}
