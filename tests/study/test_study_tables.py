"""Tables of studies whose systems differ in their metrics, and published figures beside ours."""

import csv

from ml_collections import ConfigDict

from jaxad.evaluate.metrics import AUROC, MSE, PIXEL_AUROC
from jaxad.study import tables
from jaxad.study.audit import Audit, AuditRow
from jaxad.study.results import Row, Spread, Table

NAN = float("nan")
_ROW = Row("ae", {"auroc": Spread(0.7, NAN, 1)}, {}, None, None, NAN)


def text_of(tables_and_audits, published=None):
    config = ConfigDict(
        {
            "data": {"name": "npz", "image_size": 64, "seed": 0},
            "published": published or {},
            "lengths": {},
            "experiments": {},
            "seeds": (0,),
            "num_epochs": 1.0,
            "bootstrap_resamples": 10,
        }
    )
    of_split, audits = tables_and_audits
    text = tables.markdown(config, of_split, audits, {"test": []})
    rows = csv.DictReader(tables.csv_text(tables.audit_rows(config, audits)).splitlines())
    return text, list(rows)


def test_a_metric_that_a_system_lacks_is_a_dash():
    """DifferNet does not reconstruct; metrics of pixels have no paired differences."""

    def row(name, **values):
        spreads = {key: Spread(value, NAN, 1) for key, value in values.items()}
        return Row(name, spreads, {}, None, None, NAN)

    without = Table("test", {}, (), (row("differnet"),), "", "", ())
    assert "| DifferNet | 0 | – | – | – |" in text_of(([without], []))[0]
    table = Table(
        split="test",
        references={"mse": "ae", "auroc": "ae"},
        metrics=(MSE, AUROC, PIXEL_AUROC),
        rows=(
            row("ae", mse=0.01, auroc=0.7, pixel_auroc=0.8),
            row("differnet", auroc=0.6, pixel_auroc=0.5),
        ),
        best_reference="",
        reference_encoder="",
        ensembles=(),
    )
    text, _ = text_of(([table], []))
    assert "| AE | 1 | – | – | – | 0.01000 | 0.700 | 0.800 |" in text
    assert "| DifferNet | 1 | – | – | – | – | 0.600 | 0.500 |" in text
    assert "Pixel AUROC, minus" not in text


def test_figures_over_five_folds_stand_beside_the_published_ones():
    figures = ("auroc", "f1", "accuracy", "sensitivity", "specificity")
    folds = {name: Spread(0.5 + number / 10, 0.01, 3) for number, name in enumerate(figures)}
    row = AuditRow(
        name="aeflow",
        auroc=Spread(0.9, 0.02, 3),
        figures={"five_fold": {name: Spread(0.6, 0.03, 3) for name in figures[1:]}},
        folds=folds,
    )
    audit = Audit("test", rate=0.05, patients=9, all_positive_f1=0.5, rows=(row,))
    published = {"aeflow": {"auroc": (0.92,), "five_fold_f1": (0.8662, 0.0235)}}
    table = Table("test", {}, (), (), "", "", ())
    text, rows = text_of(([table], [audit]), published)
    ours = "0.500 ± 0.010 | 0.600 ± 0.010 | 0.700 ± 0.010 | 0.800 ± 0.010 | 0.900 ± 0.010"
    assert f"| AE-FLOW | {ours} |" in text
    assert "| AE-FLOW, published | – | 0.8662 ± 0.0235 | – | – | – |" in text
    by_figure = {(row["threshold"], row["figure"]): row for row in rows}
    f1 = by_figure["five_fold", "f1"]
    assert (f1["mean"], f1["standard_deviation"]) == ("0.6", "0.03")
    assert f1["deviation_over_folds"] == "0.01"
    assert (f1["published_mean"], f1["published_standard_deviation"]) == ("0.8662", "0.0235")
    assert by_figure["", "auroc"]["published_mean"] == "0.92"
    assert by_figure["five_fold", "auroc"]["deviation_over_folds"] == "0.01"


def test_the_encoder_of_the_references_is_named():
    for encoder, words in (
        ("efficientnet_lite0, stride 32",
         "no training (those of features use efficientnet_lite0, stride 32); the last column"),
        ("", "no training; the last column"),
    ):  # fmt: skip
        text, _ = text_of(([Table("test", {}, (AUROC,), (_ROW,), "", encoder, ())], []))
        assert words in text
