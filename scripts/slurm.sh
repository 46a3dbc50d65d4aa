#!/usr/bin/env bash
# Installs Debian's Slurm for the tests of executor=slurm. Without it they are skipped, and nothing else needs it.
set -euo pipefail
if command -v slurmctld >/dev/null && command -v munged >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "No Slurm here and no way to install it: the tests of Slurm jobs will be skipped." >&2
    exit 0
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends slurm-wlm munge
