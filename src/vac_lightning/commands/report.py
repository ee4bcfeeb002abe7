"""`vac report RUNS...`: table and Figure 5 of finished runs."""

from __future__ import annotations

__all__ = ["main", "report"]

import sys
from pathlib import Path

from omegaconf import DictConfig

from vac_lightning.commands import app, words
from vac_lightning.names import shown


def main() -> int:
    sys.argv[1:] = words.positional(sys.argv[1:], "runs")
    return app.main("report", report)


def report(config: DictConfig) -> None:
    """Print the table in the paper's columns; write it to out/table.md and Figure 5 to out/figure5.png."""
    from rich.table import Table

    from vac_lightning.metrics import SUMMARY
    from vac_lightning.report import table
    from vac_lightning.report.figures import figure5
    from vac_lightning.runs import find_runs, write_atomically

    with app.usage():
        if not config.runs:
            raise ValueError("no runs given: vac report runs/shapes")
        runs = find_runs(config.runs)
    out = Path(config.out or config.runs[0])
    console = app.console()
    text = ""
    for epoch in ("best", "last"):
        with app.usage():
            rows = table.rows(runs, epoch)
        title = f"test metrics in percent, protocol {rows[0].protocol}, {epoch} epoch" + (
            f" (chosen on {rows[0].chosen_on})" if epoch == "best" else ""
        )
        grid = Table(title=shown(title))
        grid.add_column("row")
        for name in SUMMARY:
            grid.add_column(name, justify="right")
        for row in rows:
            grid.add_row(shown(row.name), *(row.cell(name) for name in SUMMARY))
        console.print(grid)
        text += f"{table.as_text(title)}\n\n{table.markdown(rows)}\n"
    write_atomically(out / "table.md", lambda file: file.write(text.encode()))
    console.print(f"table:    {out / 'table.md'}", soft_wrap=True)
    chosen = {run.results()["row"]: run for run in reversed(runs) if (run.heatmaps / "test.npz").is_file()}
    names = list(config.rows or [name for name in dict.fromkeys(row.row for row in rows) if name in chosen][:4])
    with app.usage():
        if unknown := sorted(set(names) - set(chosen)):
            raise ValueError(f"rows={unknown}: these runs have the rows {', '.join(sorted(chosen))}")
        figure5([chosen[name] for name in names], out / "figure5.png", config.labels)
    console.print(f"figure 5: {out / 'figure5.png'}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
