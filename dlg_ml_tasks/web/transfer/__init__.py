"""Handing on files over HTTP: what part of a file is wanted, under which name and type, and the bytes from the archive to the client."""
