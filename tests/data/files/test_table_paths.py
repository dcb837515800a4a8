"""The paths of and in tables."""

from pathlib import Path

import pytest
from table_files import write_table
from user_files import data_config, write_image

from jaxad.data import replay
from jaxad.data.files.tables import files_listed
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

# --- Paths outside the folder, and tables without labels.


@pytest.mark.parametrize("spelling", ["link/../data/list.csv", "../data/list.csv", "list.csv"])
def test_files_beside_a_table_are_found_however_its_path_is_spelt(tmp_path, monkeypatch, spelling):
    """`link/..` is the parent of the link's target, `stem/data`, not of the link."""
    data = tmp_path / "stem/data"
    for number in range(6):
        write_image(data / f"images/{number}.png", 100 + number)
    rows = [f"images/{n}.png,0" for n in range(5)]
    table = write_table(data, [*rows, f"{data}/images/5.png,0"], "path,label")
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(tmp_path if spelling.startswith("link") else data)
    data_set = DataSet(data_config(spelling))
    data_set.check()
    ids = {name for split in data_set.split_names for name in data_set.split(split).ids}
    assert ids == {f"images/{n}.png" for n in range(6)}
    assert files_listed(table) == [data / f"images/{n}.png" for n in range(6)]
    assert [i.id for i in replay.find_items(Path(spelling), data_config(data), normal=True)] == [
        f"images/{n}.png" for n in range(6)
    ]
    write_table(data, ["../x.png,0"], "path,label")
    with pytest.raises(UserError, match="line 2: '../x.png' is outside the table's folder"):
        DataSet(data_config(spelling))


def test_absolute_paths_may_spell_the_folder_of_the_table_in_another_way(images, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(images)
    write_table(images, [f"{images}/images/{n}.png,0" for n in range(6)], "path,label")
    data_set = DataSet(data_config(link / "list.csv"))
    ids = {name for split in data_set.split_names for name in data_set.split(split).ids}
    assert ids == {f"images/{n}.png" for n in range(6)}


def test_absolute_paths_may_lead_outside_if_allowed(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    inside = write_image(folder / "in.png", 7)
    rows = [f"{images}/images/{n}.png,0" for n in range(6)] + [f"{inside},0"]
    table = write_table(folder, rows, "path,label")
    data_set = DataSet(data_config(table, allow_outside_root=True))
    ids = {name for split in data_set.split_names for name in data_set.split(split).ids}
    assert ids == {*(f"{images}/images/{n}.png" for n in range(6)), "in.png"}
    with pytest.raises(
        UserError, match=r"0.png' is outside .*; set --config.data.allow_outside_root=True, or move"
    ):
        DataSet(data_config(table))
    table = write_table(folder, [f"../{images.name}/images/0.png,0"], "path,label")
    with pytest.raises(UserError, match="outside the table's folder; write its absolute path, or"):
        DataSet(data_config(table, allow_outside_root=True))
    table = write_table(folder, [f"{images}/images/._0.png,0"], "path,label")
    with pytest.raises(UserError, match="is a hidden file"):
        DataSet(data_config(table, allow_outside_root=True))


def test_a_run_s_permission_for_paths_outside_is_not_that_of_other_tables(images, tmp_path_factory):
    """Each caller names the flag that its user can set."""
    folder = tmp_path_factory.mktemp("elsewhere")
    table = write_table(folder, [f"{images}/images/0.png"], "path")
    data = data_config("", allow_outside_root=True)
    for read in (replay.find_items, replay.read_normals):
        with pytest.raises(UserError, match="outside .*; set --allow_outside_root=True, or move"):
            read(table, data)
        assert len(read(table, data, allow_outside_root=True)) == 1
    with pytest.raises(UserError, match="outside .*; set allow_outside_root=True, or move"):
        replay.read_files(table, data, flag="allow_outside_root=True")
