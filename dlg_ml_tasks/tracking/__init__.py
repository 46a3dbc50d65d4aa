"""MLflow: artifacts in NGAS, task runs, references, the model registry. It knows no task, no recipe and no DALiuGE.

This file imports no mlflow: MLflow loads the plugin of this package while it is itself half imported.
"""

from dlg_ml_tasks.tracking.reference import Reference, digest_of

__all__ = ["Reference", "digest_of"]
