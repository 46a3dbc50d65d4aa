"""The health check of the NGAS container: exit code 0 if the server says that it is ONLINE."""

import re
import sys
from urllib.request import urlopen

try:
    with urlopen("http://127.0.0.1:7777/STATUS", timeout=10) as answer:
        text = answer.read(1 << 16).decode("latin-1")
except OSError as error:
    sys.exit(f"NGAS does not answer: {error}")
state = re.search(r'State="([A-Z]+)"', text)
if 'Status="SUCCESS"' not in text or state is None or state.group(1) != "ONLINE":
    sys.exit("NGAS is {}, not ONLINE; is its disk full?".format(state.group(1) if state else "in no known state"))
