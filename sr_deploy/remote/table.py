"""The states of several boards as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Sequence

if TYPE_CHECKING:
    from rich.table import Table


def states_table(outcomes: Sequence[Dict[str, Any]]) -> Table:
    """One row a board.

    Args:
        outcomes: dicts with ``board``, ``state``, ``attached``, ``job``, ``seconds``, ``sent_bytes``, ``dropped``,
            ``files``, ``error``.
    """
    from rich.table import Table
    from rich.text import Text

    from sr_deploy.core.text import markup

    table = Table(title="Boards")
    for heading in ("board", "state", "job"):
        table.add_column(heading, no_wrap=True)
    for heading in ("job s", "sent KiB", "drops", "files home"):
        table.add_column(heading, justify="right")
    table.add_column("why", overflow="fold")
    for row in outcomes:
        style = {"done": "green", "failed": "red"}.get(row["state"], "yellow")
        seconds = "–" if row["seconds"] is None else f"{row['seconds']:.1f}"
        table.add_row(
            markup(row["board"]),
            Text(row["state"] + (" (attached)" if row["attached"] else ""), style),
            row["job"] or "–",
            seconds,
            f"{row['sent_bytes'] / 1024:.0f}",
            str(row["dropped"]),
            str(len(row["files"])),
            markup(row["error"]["found"]) if row["error"] else "",
        )
    return table
