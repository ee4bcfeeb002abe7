"""The report as one self-contained HTML page."""

__all__ = ["write"]

from vac_lightning.report.page.document import write
