#!/usr/bin/env bash
# Installs what pip cannot: a C compiler and Python's headers, for the engine's `netifaces` (it has no wheel).
set -euo pipefail
if command -v cc >/dev/null && python3 -c 'import os, sysconfig, venv, ensurepip; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Please install a C compiler, Python's headers and venv (Debian: build-essential python3-dev python3-venv), then run again." >&2
    exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends build-essential python3-dev python3-venv
