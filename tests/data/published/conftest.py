"""Fixtures of the tests of published data sets: the cache folder, and reading."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.data.data_sets import DATA_SETS
from jaxad.data.published.manual import Choices, config_for
from jaxad.data.tfds import splits
from jaxad.types import Split


@pytest.fixture(autouse=True)
def tfds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test, so that the user's is not touched."""
    folder = tmp_path / "prepared"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def read_all(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Split]]:
    """All splits of a data set, prepared and read back: `read_all("hcp", root, choices)`."""
    folder = str(tmp_path_factory.mktemp("prepared"))

    def read(name: str, root: Path, choices: Choices) -> dict[str, Split]:
        builder = DATA_SETS[name].load_builder()
        config = config_for(builder, root, choices)
        readers = splits.open_builder(builder, config, folder, root)
        return {split: reader() for split, reader in readers.items()}

    return read


@pytest.fixture
def data_config() -> Callable[..., ConfigDict]:
    """`config.data` of a data set: `data_config("hcp", root, image_size=32)`."""

    def make(name: str, root: Path | str, **fields: object) -> ConfigDict:
        data = config_lib.base().data
        data.update({"name": name, "root": str(root), **fields})
        return data

    return make
