"""Starts NGAS in the container of its published image: makes what an empty volume lacks, and becomes the server.

Runs on the image's own Python (3.6 or later) and uses nothing but its standard library.
"""

import base64
import os
import pwd
import shutil
import sqlite3
import sys
import uuid
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path("/home/ngas/NGAS")
VOLUME = ROOT / "volume1"
DATABASE = ROOT / "ngas.sqlite"
CONFIGURATION = ROOT / "cfg" / "ngamsServer.conf"
SERVER = Path(sys.executable).with_name("ngamsServer")


def main():
    """Give a new volume to the image's user, go on as that user, and start the server."""
    if not CONFIGURATION.is_file():
        sys.exit(f"ngas: {CONFIGURATION} is missing; mount deploy/ngas/ngamsServer.conf there")
    check_space()
    become_ngas()
    try:
        make_volume()
        make_database()
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"ngas: cannot prepare {ROOT}: {error}")
    # -force: a process file that a killed server left is no other server, as this container is the only one on its volume.
    os.execv(str(SERVER), [str(SERVER), "-cfg", str(CONFIGURATION), "-autoonline", "-force", "-v", "3"])  # noqa: S606  no shell


def check_space():
    """Say in one line what NGAS would say by a traceback: a server whose disk is full does not start."""
    try:
        janitor = ElementTree.parse(str(CONFIGURATION)).getroot().find("JanitorThread")  # noqa: S314  the operator's own file
    except ElementTree.ParseError as error:
        sys.exit(f"ngas: {CONFIGURATION} is no XML: {error}")
    wanted = 0 if janitor is None else int(janitor.get("MinSpaceSysDirMb", "0"))
    free = shutil.disk_usage(str(ROOT)).free >> 20
    if free < wanted:
        sys.exit(
            f"ngas: the disk of {ROOT} is full: {free} MB are left, and NGAS starts with {wanted}; free space on it"
        )


def become_ngas():
    """A new volume belongs to root; from here on root is not needed."""
    if os.getuid() != 0:
        return
    user = pwd.getpwnam("ngas")
    if ROOT.stat().st_uid != user.pw_uid:
        os.chown(str(ROOT), user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)


def make_volume():
    """NGAS takes a directory for a disk when this file gives it an id."""
    VOLUME.mkdir(exist_ok=True)
    identity = f"DiskId = {uuid.uuid4().hex}\nManufacturer = dlg-ml\nType = volume\n"
    write_once(VOLUME / ".ngas_volume_info", base64.encodebytes(identity.encode()))


def make_database():
    """The tables by the image's own script, and an index without which each listing of a directory reads all rows."""
    if not DATABASE.exists():
        import ngamsSql

        script = Path(ngamsSql.__file__).with_name("ngamsCreateTables-SQLite.sql")
        new = DATABASE.with_name("new.sqlite")
        if new.exists():
            new.unlink()
        connection = sqlite3.connect(str(new))
        connection.executescript(script.read_text())
        connection.close()
        new.rename(DATABASE)
    connection = sqlite3.connect(str(DATABASE))
    # NGAS lists by `file_id LIKE ...`, which in SQLite compares without case and uses only an index that does so, too.
    connection.execute(
        "CREATE INDEX IF NOT EXISTS ngas_files_id_pattern ON ngas_files (file_id COLLATE NOCASE, file_version)"
    )
    connection.commit()
    connection.close()


def write_once(path, content):
    """Write a file that is not there yet, whole or not at all."""
    if not path.exists():
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        part.rename(path)


if __name__ == "__main__":
    main()
