"""The read model: what MLflow knows, kept in a local SQLite database that pages are made from, and refreshed in the background.

A page asks for no more than milliseconds of work, and answers while MLflow is slow or away.
"""
