#!/bin/sh
# Makes the secrets of docker-compose.yml, files that only their owner can read. What is there already stays.
set -eu
cd "$(dirname "$0")/secrets"
umask 077
if [ ! -s postgres_password ]; then
    python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > postgres_password.part
    mv postgres_password.part postgres_password
fi
# The containers' users read it through the mount, and no other user of this machine reaches it: the folder is closed.
chmod 700 .
chmod 644 postgres_password
