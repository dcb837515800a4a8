"""Settings of the whole test session; they must stand before JAX starts."""

import os

# Several devices on the CPU, for the tests of both parallel modes.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs here run for a few steps: compiling them fast is worth more than running them fast.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from jaxtyping import install_import_hook

# Every annotated shape and type is checked while the tests run.
install_import_hook("jaxad", "beartype.beartype")

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import emulators
import jax
import numpy as np
import pytest

from jaxad.runtime import interrupts, messages

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def printed_messages() -> Iterator[None]:
    """Messages are printed as on the command line, so that tests read them with `capsys`."""
    with messages.printed():
        yield


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are not those of a notebook, although tests of notebooks may have run before."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.fixture(autouse=True)
def long_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets signals in this process be answered late: a busy machine would end the session."""
    monkeypatch.setattr(interrupts, "_GRACE_SECONDS", 600.0)


_LONGEST_FILES = (
    "test_loop.py", "test_smoke.py", "test_site_evaluation.py", "test_in_a_bucket.py",
    "test_processes.py", "test_odd_names.py", "test_likelihood_flows.py", "test_notebooks.py",
    "test_study.py", "test_checkpoint.py", "test_ae_flow.py", "test_hierarchical_vae.py",
    "test_step.py", "test_baselines.py", "test_audit.py", "test_export.py", "test_flow_levels.py",
    "test_extending.py", "test_external.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: two workers then end at about the same time."""
    order = {name: place for place, name in enumerate(_LONGEST_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are kept, for all workers and launched processes of the session."""
    base = tmp_path_factory.getbasetemp()
    # A worker's own folder is in that of the session.
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(compiled: Path) -> None:
    """Programs that several tests compile are compiled once."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


ROOT = Path(__file__).parent.parent
Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS folder that the session's runs share, so that data are generated once."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def launch_environment(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> dict[str, str]:
    """The environment of launched processes: one device, and programs compiled once."""
    environment = dict(os.environ, XLA_FLAGS="")
    environment["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("user_cache"))
    return environment


@pytest.fixture(scope="session")
def launch(launch_environment: dict[str, str]) -> Launch:
    """Runs launch.py as a user would: `launch("--config=...", ...)`."""

    def run(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=launch_environment,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def smoke_run(launch: Launch, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished `pchvae:smoke` fit."""
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    result = launch(
        "--config=pchvae:smoke", f"--workdir={workdir}", f"--config.data.root={data_root}"
    )
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope="session")
def smoke_study(launch: Launch, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of all systems of the pchVAE paper, one seed of each."""
    workdir = tmp_path_factory.mktemp("study") / "smoke"
    result = launch(
        "--mode=study",
        "--config=configs/studies/pchvae_table1.py:smoke",
        f"--workdir={workdir}",
        f"--config.data.root={data_root}",
        "--config.seeds=(0,)",
    )
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope="session")
def aeflow_run(launch: Launch, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished `aeflow:smoke` fit."""
    workdir = tmp_path_factory.mktemp("runs") / "aeflow"
    result = launch(
        "--config=aeflow:smoke", f"--workdir={workdir}", f"--config.data.root={data_root}"
    )
    assert result.returncode == 0, result.stderr
    assert "feature cache: train: " in result.stdout
    return workdir


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two stores of objects on this machine; the variables that lead clients to them."""
    with emulators.stores(tmp_path_factory.mktemp("stores") / "log") as environment:
        yield environment


@pytest.fixture(params=["gs", "s3"])
def bucket(
    request: pytest.FixtureRequest,
    stores: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The URL of an empty folder in a bucket, of either kind."""
    for name, value in stores.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of buckets"))
    return f"{request.param}://{emulators.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
