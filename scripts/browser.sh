#!/usr/bin/env bash
# Installs Debian's chromium for the tests of web pages. Without it they are skipped, and nothing else needs it.
set -euo pipefail
if command -v chromium >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "No chromium here and no way to install it: the tests of web pages will be skipped." >&2
    exit 0
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core
