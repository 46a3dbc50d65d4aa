"""Where everything comes from: MLflow's REST interface and the archive, each through a reader that can only read."""
