"""The built wheel works without the checkout. Long: it builds with the network's packages."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.long
def test_configs_and_command_travel_with_the_wheel(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("jaxad-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"jaxad/configs/pchvae.py", "jaxad/configs/studies/pchvae_table1.py"} <= set(names)
    for name in ("page.html.jinja", "style.css", "cases.js"):
        assert f"jaxad/report/templates/{name}" in names
    # Nothing but the package reaches site-packages.
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxad"}

    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
    )
    # -S would lose the dependencies: the wheel stands before the checkout on the path instead.
    code = (
        "import jaxad; from pathlib import Path; "
        f"assert Path(jaxad.__file__).is_relative_to({str(site)!r}), jaxad.__file__; "
        "print(jaxad.get_config('pchvae:demo').model.name, "
        "jaxad.get_config('configs/pchvae.py:demo').data.name)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["pchvae", "icbm_synth"]
    assert (site / "bin" / "jaxad").exists()
