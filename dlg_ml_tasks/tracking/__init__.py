"""MLflow: artifacts in NGAS, task runs, references, the model registry. It knows no task, no recipe and no DALiuGE.

This file imports no mlflow: MLflow loads the plugin of this package while it is itself half imported.
"""

import os

from dlg_ml_tasks.tracking.reference import Reference, digest_of

__all__ = ["Reference", "digest_of"]

# Before MLflow is imported, wherever that is. Its telemetry would call home from the instrument's network, and its thread changes
# the environment: a request that another thread makes in that moment fails with a KeyError.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Its bars and links would run through logs and through this package's own tables.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
