"""Exits with 0 while /readyz answers 200, or 503 because engines are being built: an end would begin anew.

Standard library only: an engine runs it every few seconds.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request

port = os.environ.get("SAGE_PORT", "8080")
scheme = "https" if os.environ.get("SAGE_TLS_CERT_FILE") else "http"
itself = ssl._create_unverified_context()  # the certificate names the board, not 127.0.0.1
try:
    urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/readyz", timeout=2, context=itself).close()
except urllib.error.HTTPError as exc:
    reply = exc.read().decode(errors="replace")
    try:
        is_building = exc.code == 503 and json.loads(reply)["state"] == "building_engine"
    except (ValueError, KeyError, TypeError):
        is_building = False
    if not is_building:
        sys.exit(f"not ready: {exc}: {reply}")
    print(reply)
except OSError as exc:
    sys.exit(f"not ready: {exc}")
