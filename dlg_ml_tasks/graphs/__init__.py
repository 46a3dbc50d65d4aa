"""Logical graphs of tasks: build, check, change, submit to the engine, and follow."""
