"""Backup and restore of MLflow's database and of what it names in archives, for the embedded stack and for real servers."""
