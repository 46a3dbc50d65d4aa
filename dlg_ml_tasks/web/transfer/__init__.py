"""Handing on files over HTTP: what part of a file is wanted, under which name and type, and how its bytes get to the client."""
