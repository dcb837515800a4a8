"""jaxad: anomaly detection in medical images, trained on normal images only.

    import jaxad

    config = jaxad.get_config("pchvae:demo")
    detector = jaxad.fit(config, "runs/demo")
    scores = detector.score(images)

Importing the package is cheap; a function imports what it needs when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxad.api import (
        evaluate_site,
        export_detector,
        fit,
        inspect_data,
        load_data,
        run_study,
        score_files,
        write_report,
    )
    from jaxad.config import get_config
    from jaxad.detector.calibrated import explain
    from jaxad.detector.load import load, load_calibration
    from jaxad.report.contact_sheet import contact_sheet

__all__ = [
    "__version__",
    "contact_sheet",
    "evaluate_site",
    "explain",
    "export_detector",
    "fit",
    "get_config",
    "inspect_data",
    "load",
    "load_calibration",
    "load_data",
    "run_study",
    "score_files",
    "write_report",
]
__version__ = "0.1.0"

#: Public name -> the module that defines it.
_MODULES = {
    "contact_sheet": "jaxad.report.contact_sheet",
    "evaluate_site": "jaxad.api",
    "explain": "jaxad.detector.calibrated",
    "export_detector": "jaxad.api",
    "fit": "jaxad.api",
    "get_config": "jaxad.config",
    "inspect_data": "jaxad.api",
    "load": "jaxad.detector.load",
    "load_calibration": "jaxad.detector.load",
    "load_data": "jaxad.api",
    "run_study": "jaxad.api",
    "score_files": "jaxad.api",
    "write_report": "jaxad.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'jaxad' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
