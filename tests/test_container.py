"""The container: a user without a home folder, a read-only system, and the files of the image."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Makes a tmpfs of the first argument and everything else read-only, /dev/shm and /tmp too, and
#: runs the rest as user 12345, whom the system does not know. Namespaces need no root.
BOX = """
work=$1; shift
mount -t tmpfs tmpfs "$work" && chmod 1777 "$work" || exit 77
while read -r _ _ _ _ point options _; do
  case $point in "$work"|/proc|/proc/*|/dev/pts) continue;; esac
  mount -o "remount,bind,ro,$(echo "$options" | sed "s/^rw/ro/")" "$point" 2> /dev/null
done < /proc/self/mountinfo
touch "$HOLDER/written" 2> /dev/null && exit 78
cd / && exec unshare --user --map-user=12345 --map-group=12345 "$@"
"""
#: Files that the fit writes, among others.
WRITTEN = ("config.json", "metrics.jsonl", "eval/test_objects/scores.csv", "report.html")


def environment(**variables):
    """A container's environment: nothing of this user's but what finds the package and is fast."""
    names = ("PATH", "JAX_DISABLE_MOST_OPTIMIZATIONS", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | variables


def command(workdir):
    return [
        sys.executable,
        str(ROOT / "launch.py"),
        "--config=pchvae:smoke",
        f"--workdir={workdir}",
    ]


@pytest.mark.long
def test_smoke_fit_on_a_read_only_system_as_an_unknown_user(tmp_path):
    """As `docker run --read-only --user 12345 -v ...:/data`, where HOME is `/`."""
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespaces, "true"]).returncode:
        pytest.skip("this system does not allow user namespaces")
    work = tmp_path / "work"
    work.mkdir()
    listing = f"find {work} -type f"  # the tmpfs is gone after the command
    result = subprocess.run(
        [
            *namespaces, "sh", "-c", BOX, "sh", str(work), "sh", "-c",
            f'"$@"; code=$?; echo LISTING; {listing}; exit $code', "sh", *command(work / "run"),
        ],
        env=environment(HOME="/", XDG_CACHE_HOME=str(work / ".cache"), HOLDER=str(tmp_path)),
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    if result.returncode in (77, 78):
        pytest.skip("this system does not allow mounts in user namespaces")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # not a single note: one variable is enough
    files = result.stdout.split("LISTING\n")[1]
    for name in WRITTEN:
        assert str(work / "run" / name) in files
    inside = (f"{work}/run/", f"{work}/.cache/")
    assert all(line.startswith(inside) for line in files.splitlines())


@pytest.mark.long
def test_smoke_fit_without_a_home_folder(tmp_path):
    """Without namespaces: a home folder that nobody can create, and no variable for caches."""
    (tmp_path / "tmp").mkdir()
    result = subprocess.run(
        command(tmp_path / "run"),
        env=environment(HOME="/dev/null/home", TMPDIR=str(tmp_path / "tmp")),
        capture_output=True, text=True, timeout=580, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    notes = result.stderr.splitlines()
    assert len(notes) == 2 and all(line.startswith("note: ") for line in notes), notes
    assert all("XDG_CACHE_HOME" in line for line in notes)
    for name in WRITTEN:
        assert (tmp_path / "run" / name).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tmp"]
    assert (tmp_path / "tmp" / f"jaxad-{os.getuid()}" / "tensorflow_datasets").is_dir()


def test_the_image_has_what_the_package_needs():
    """Every copied file exists and is not ignored; every extra of every device is declared."""
    lines = (ROOT / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", lines, re.M) for name in line.split()]
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= set(copied)
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*build["packages"], *build["force-include"]} <= set(copied)
    variables = dict(re.findall(r"([A-Z_]+)=(/\S+)", lines))
    assert Path(variables["TFDS_DATA_DIR"]).parent == Path(variables["XDG_CACHE_HOME"])
    extras = {"dicom", "gcs", "hub", "s3", "cuda", "tpu"}
    assert extras <= set(project["project"]["optional-dependencies"])
    assert 'extras="dicom,gcs,hub,s3"' in lines and "cuda|tpu)" in lines
