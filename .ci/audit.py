"""Asks for known vulnerabilities of jaxad's run-time dependencies (pip-audit).

Fails where one is fixed in a later version; warns where none is. Where the service cannot be
reached, or knows nothing of our dependencies (a mirror without it), it says that it skipped.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dependencies import closure

#: What pip-audit ends in where it reaches nothing.
_NO_NETWORK = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries|"
    r"Name or service not known|(name|address).{0,20} resol|Network is unreachable|"
    r"Connection refused|timed out|"
    r"\b(403|404|407|429) Client Error|\b5\d\d Server Error",
    re.IGNORECASE,
)


def verdict(output: str, errors: str) -> tuple[int, list[str]]:
    """The exit code and what to print, from what pip-audit printed.

    Args:
        output: its report, in JSON; "" where it came to none.
        errors: what it said beside it.
    """
    try:
        found: Sequence[Mapping[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (errors.strip().splitlines() or ["no answer"])[-1][:120]
        if _NO_NETWORK.search(errors):
            return 0, [f"skipped: no network ({last})"]
        return 1, [f"pip-audit failed: {last}"]
    audited = [one for one in found if "vulns" in one]
    if not audited:
        return 0, [f"skipped: the service knows none of {len(found)} dependencies (a mirror?)"]
    lines, code = [], 0
    for one in audited:
        for vulnerability in one["vulns"]:
            fixes = ", ".join(vulnerability.get("fix_versions") or ())
            code = 1 if fixes else code
            remedy = f"fixed in {fixes}" if fixes else "not fixed yet: a warning"
            lines.append(f"{one['name']} {one['version']}: {vulnerability['id']}, {remedy}")
    lines += [f"not audited: {one['name']}" for one in found if "vulns" not in one]
    return code, [*lines, f"{len(audited)} dependencies audited"]


def main() -> int:
    """Audits the versions that are installed here."""
    pins = [f"{name}=={metadata.version(name)}\n" for name in closure()]
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(pins))
        result = subprocess.run(
            [sys.executable, "-m", "pip_audit", f"--requirement={requirements}", "--no-deps",
             "--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=15"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    code, lines = verdict(result.stdout, result.stderr)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
