"""The report of a run: figures and one self-contained HTML page, made from its files alone."""

from jaxad.report.page import write_report

__all__ = ["write_report"]
