"""The names of the tags that a run, a session and a reuse carry in MLflow."""

from __future__ import annotations

TASK = "dlg_ml.task"
NODE = "dlg_ml.node"
KIND = "dlg_ml.kind"
SESSION = "dlg_ml.session"
FINGERPRINT = "dlg_ml.fingerprint"
INPUTS = "dlg_ml.inputs"
ENVIRONMENT = "dlg_ml.environment"
PROGRESS = "dlg_ml.progress"
OUTPUT = "dlg_ml.output"
ERROR = "dlg_ml.error"
REUSED = "dlg_ml.reused."
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
