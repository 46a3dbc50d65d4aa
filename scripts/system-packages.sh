#!/usr/bin/env bash
# Installs what pip cannot: C and C++ compilers and Python's headers, for the engine's `netifaces` and HERA's `aipy` (they have no wheels).
set -euo pipefail
if command -v cc >/dev/null && command -v c++ >/dev/null && python3 -c 'import os, sysconfig, venv, ensurepip; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Please install C and C++ compilers, Python's headers and venv (Debian: build-essential python3-dev python3-venv), then run again." >&2
    exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends build-essential python3-dev python3-venv
