"""The `dlg-ml` command: thin wrappers that parse, call the rooms below, and show what came out."""
