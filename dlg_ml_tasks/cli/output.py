"""What all commands share: consoles, one-line errors, JSON output."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from dlg_ml_tasks.archive import NgasError
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.graphs.errors import EngineError
from dlg_ml_tasks.stack import StackError
from dlg_ml_tasks.tasks import TaskError
from dlg_ml_tasks.tracking.errors import ContentChanged, TrackingUnreachable, UnknownModel

# Who pipes a table into another program wants whole lines, not those of an imagined terminal.
console = Console(width=None if sys.stdout.isatty() else 1000)
errors = Console(stderr=True)


def user_errors() -> tuple[type[Exception], ...]:
    """Exceptions that say in one line what a person can mend."""
    return (
        NgasError,
        BackupError,
        EngineError,
        StackError,
        TaskError,
        ContentChanged,
        TrackingUnreachable,
        UnknownModel,
    )


def fail(message: str) -> NoReturn:
    """Print an error as one line on standard error and leave with exit code 1."""
    errors.print(Text("error: ", style="bold red") + Text(message), soft_wrap=True, highlight=False)
    sys.exit(1)


def print_json(value: Any) -> None:
    """Print JSON for scripts, uncoloured and unwrapped."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
