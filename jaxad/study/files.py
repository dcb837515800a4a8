"""The files of a study: tables, audit, figures and sheets, made of its finished runs."""

import logging
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jaxad.data.sources import DataSet
from jaxad.evaluate.trivial import LINEAR_BASELINE, TrivialScores
from jaxad.report import figures, study_figures
from jaxad.report.study_figures import SystemScores
from jaxad.storage.workdir import Workdir, atomic_write
from jaxad.study import audit, tables
from jaxad.study.heat_map import make_heat_map
from jaxad.study.plan import PlannedRun
from jaxad.study.results import Scored, make_table, read_scores
from jaxad.study.sheet import map_sheet, reconstruction_sheet

logger = logging.getLogger(__name__)

#: Experiments, each with its finished runs.
Finished = Mapping[str, Sequence[PlannedRun]]


def write_results(
    config: ConfigDict,
    folder: Workdir,
    finished: Finished,
    data_set: DataSet,
    trivial: TrivialScores,
    *,
    print_table: bool = True,
) -> None:
    """`table.md`, `table.csv`, `audit.csv`, figures, sheets, and heat maps where asked for."""
    found_tables, audits = [], []
    pictures: dict[str, list[tables.Picture]] = {}
    for split in data_set.test_split_names:
        scored = read_scores(finished, data_set, trivial, split)
        found_tables.append(make_table(config, finished, scored, split))
        found = audit.make_audit(finished, scored, data_set, trivial, split)
        audits += [] if found is None else [found]
        pictures[split] = _pictures(config, folder, finished, data_set, split, scored)
        heat_map = make_heat_map(config, finished, split, data_set.split(split))
        if heat_map is not None:
            axes = f"{config.heat_map.row_name} and {config.heat_map.column_name}"
            drawn = heat_map.figure(split)
            pictures[split].append(_save(folder, f"heat_map_{split}", f"AUROC over {axes}", drawn))
            _write(folder, f"heat_map_{split}.csv", heat_map.comma_separated())
    _write(folder, "table.csv", tables.comma_separated(config, found_tables))
    _write(folder, "audit.csv", audit.comma_separated(audits))
    text = tables.markdown(config, found_tables, audits, pictures)
    _write(folder, "table.md", text)
    if print_table:
        logger.info(f"\n{text}")
    logger.info(f"tables: {folder.path / 'table.md'}, {folder.path / 'table.csv'}")


def _pictures(
    config: ConfigDict,
    folder: Workdir,
    finished: Finished,
    data_set: DataSet,
    split: str,
    scored: Scored,
) -> list[tables.Picture]:
    """Curves and densities of all systems, where both classes occur, and sheets where asked."""
    saved, rows = [], data_set.split(split)
    if 0 < rows.labels.mean() < 1:
        systems = {
            tables.title(name): SystemScores(
                rows.labels, [run.columns["score"] for run in scored[name]], name not in finished
            )
            for name in (*finished, LINEAR_BASELINE)
        }
        drawn = study_figures.roc_curves(systems, split)
        saved.append(_save(folder, f"roc_{split}", f"ROC curves on {split}", drawn))
        drawn = study_figures.score_densities(systems, split)
        saved.append(_save(folder, f"densities_{split}", f"Densities of scores on {split}", drawn))
    if config.num_slices > 0:
        shown = {name: runs[0] for name, runs in finished.items()}
        for name, text, sheet in (
            (split, f"The same slices of {split} through all", reconstruction_sheet),
            (f"maps_{split}", f"What all find in the same slices of {split}", map_sheet),
        ):
            saved.append(_save(folder, name, text, sheet(shown, rows, config.num_slices)))
    return saved


def _save(folder: Workdir, name: str, text: str, figure: Figure) -> tables.Picture:
    path = f"figures/{name}.png"
    with atomic_write(folder.path / path, "wb") as file:
        file.write(figures.to_png(figure))
    return tables.Picture(text, path)


def _write(folder: Workdir, name: str, text: str) -> None:
    with atomic_write(folder.path / name) as file:
        file.write(text)
