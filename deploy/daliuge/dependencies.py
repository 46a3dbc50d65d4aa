"""Prints what pyproject.toml says that the package and its flagship recipe need, one requirement a line."""

from pathlib import Path

import tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["rfi"]]))
