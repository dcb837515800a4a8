"""What `.ci` asks of dependencies: licences that we take, and no known vulnerability."""

import importlib
import json
import sys
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

CI = Path(__file__).parent.parent / ".ci"


@pytest.fixture(scope="module")
def ci():
    """The modules of `.ci`, which are scripts and in no package."""
    if not CI.is_dir():
        pytest.skip("a source distribution has no .ci")
    names = ("dependencies", "licences", "audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CI))
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            del sys.modules[name]


def about(**fields):
    """Metadata of a distribution: `License_Expression="MIT"` for `License-Expression: MIT`."""
    message = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"License_Expression": "MIT", "License": "GPL-3.0-only"}, "MIT"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"License": "MIT License\n\nCopyright (c) 2020 Somebody"}, "MIT"),
        ({"License": "(c) Somebody", "Classifier": "License :: OSI Approved :: BSD License"},
         "BSD-3-Clause"),
        ({"Classifier": ["License :: OSI Approved :: MIT License",
                         "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"]},
         "GNU General Public License v3 (GPLv3) AND MIT"),
        ({"License": "GPL-3.0-or-later"}, "GPL-3.0-or-later"),
        ({"License": "UNKNOWN"}, ""),
        ({"Classifier": "License :: OSI Approved"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_what_metadata_say(ci, fields, expected):
    assert ci.licences.declared(about(**fields)) == expected


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MPL-2.0", True),
        ("GPL-3.0-only", False),
        ("", False),
        ("Custom", False),
        ("MIT OR GPL-2.0-only", True),
        ("GPL-2.0-only or MIT", True),
        ("MIT AND GPL-2.0-only", False),
        ("MIT AND (GPL-2.0-only OR Apache-2.0)", True),
        ("(MIT OR ISC) AND (GPL-2.0-only OR AGPL-3.0-only)", False),
        ("MIT OR ISC AND GPL-2.0-only", True),  # AND binds first
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("MIT)", False),
    ],
)
def test_expressions(ci, expression, allowed):
    assert ci.licences.is_allowed(expression) == allowed


def test_what_is_wrong_is_named(ci):
    found = list(ci.licences.problems({"a": "MIT", "b": "AGPL-3.0-only", "c": "", "d": "Mine"}))
    assert [line.partition(" (")[0] for line in found] == [
        "b: AGPL-3.0-only", "c: no licence told", "d: Mine",
    ]  # fmt: skip
    assert "strong copyleft" in found[0] and "strong" not in found[1] + found[2]


def test_the_closure_follows_markers_and_extras(ci):
    requires = {
        "root": ["A>=1", 'never; python_version < "3"', 'dev; extra == "test"', "b[fast]"],
        "a": ["c", "Root"],  # a circle
        "b": ['D_d; extra == "fast"', 'e; extra == "slow"'],
        "c": None,
        "d-d": [],
    }
    found = ci.dependencies.closure("root", lambda name: SimpleNamespace(requires=requires[name]))
    assert list(found) == ["a", "b", "c", "d-d"]


def test_our_own_dependencies_are_free_to_use(ci, monkeypatch, capsys):
    assert ci.licences.main() == 0, capsys.readouterr().out
    monkeypatch.setattr(ci.licences, "ALLOWED", ci.licences.ALLOWED - {"Apache-2.0"})
    assert ci.licences.main() == 1
    assert "\njax: Apache-2.0 (not in .ci/licences.py)" in capsys.readouterr().out


def report(*vulnerabilities, **fields):
    one = {"name": "a", "version": "1", "vulns": list(vulnerabilities), **fields}
    return json.dumps({"dependencies": [one], "fixes": []})


@pytest.mark.parametrize(
    ("output", "errors", "code", "says"),
    [
        (report(), "", 0, "1 dependencies audited"),
        (report({"id": "X-1", "fix_versions": ["2"]}), "", 1, "a 1: X-1, fixed in 2"),
        (report({"id": "X-1", "fix_versions": []}), "", 0, "a 1: X-1, not fixed yet: a warning"),
        (json.dumps({"dependencies": [{"name": "a", "skip_reason": "not found"}]}), "", 0,
         "skipped: the service knows none of 1 dependencies"),
        ("", "Traceback\nrequests.exceptions.ConnectionError: Failed to resolve 'pypi.org'", 0,
         "skipped: no network (requests.exceptions.ConnectionError"),
        ("", "requests.exceptions.HTTPError: 503 Server Error", 0, "skipped: no network"),
        ("", "HTTPError: 400 Client Error: Bad Request", 1, "pip-audit failed: HTTPError: 400"),
        ("", "cannot resolve: a refused B", 1, "pip-audit failed: cannot resolve"),
        ("", "No module named pip_audit", 1, "pip-audit failed: No module named pip_audit"),
        ("", "", 1, "pip-audit failed: no answer"),
    ],
)  # fmt: skip
def test_vulnerabilities(ci, output, errors, code, says):
    found, lines = ci.audit.verdict(output, errors)
    assert found == code
    assert says in "\n".join(lines)
