"""The components of the tasks with tracking off: the same drops, child processes and messages."""

from __future__ import annotations

from untracked import LOAD_RAW, PREPROCESS

from dlg_ml_tasks.components.apps import LoadRawApp, PreprocessApp


class UntrackedLoadRawApp(LoadRawApp):
    """load_raw without tracking."""

    task = LOAD_RAW


class UntrackedPreprocessApp(PreprocessApp):
    """preprocess without tracking."""

    task = PREPROCESS
