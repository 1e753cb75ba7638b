"""Exits with 0 while /readyz answers 200. Standard library only: an engine runs it every few seconds."""

import os
import sys
import urllib.request

port = os.environ.get("SAGE_PORT", "8080")
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
except OSError as exc:
    sys.exit(f"not ready: {exc}")
