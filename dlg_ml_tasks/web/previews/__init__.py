"""Files shown in place: what kind each is, and a small model of its beginning or its header; large ones never come whole."""

from dlg_ml_tasks.web.previews.kinds import preview
from dlg_ml_tasks.web.previews.model import Preview

__all__ = ["Preview", "preview"]
