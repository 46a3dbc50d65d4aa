"""The results site: what was trained, what was inferred, from which raw files; for anyone with a browser.

It reads MLflow's REST interface and the archive, never writes, and imports neither mlflow nor torch nor the engine: a site that
serves files to many people at once has to be small.
"""
