"""The files of an inspection of data: facts, duplicates, and a contact sheet."""

import dataclasses
from pathlib import Path

from jaxad.data.inspection import Inspection, write_duplicates
from jaxad.data.sources import DataSet
from jaxad.report.contact_sheet import data_set_sheet
from jaxad.report.figures import to_png
from jaxad.storage.workdir import atomic_write, write_json


def write_inspection(folder: Path, inspection: Inspection, data_set: DataSet) -> Path:
    """Writes `inspect.json`, `duplicates.csv`, and `inspect.png`; returns the path of the last."""
    write_json(folder / "inspect.json", dataclasses.asdict(inspection))
    write_duplicates(folder / "duplicates.csv", inspection)
    path = folder / "inspect.png"
    splits = {name: data_set.split(name) for name in data_set.split_names}
    with atomic_write(path, "wb") as file:
        file.write(to_png(data_set_sheet(splits)))
    return path
