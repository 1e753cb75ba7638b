"""Exits with 0 while /readyz answers 200. Standard library only: an engine runs it every few seconds."""

import os
import ssl
import sys
import urllib.request

port = os.environ.get("SAGE_PORT", "8080")
scheme = "https" if os.environ.get("SAGE_TLS_CERT_FILE") else "http"
itself = ssl._create_unverified_context()  # the certificate names the board, not 127.0.0.1
try:
    urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/readyz", timeout=2, context=itself).close()
except OSError as exc:
    sys.exit(f"not ready: {exc}")
