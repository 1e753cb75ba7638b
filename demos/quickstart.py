"""Start the service, refine one real frame, show what came back. ``make run`` and ``make demo``."""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
FRAME = HERE / "frames" / "nuclei.webp"
READY_WITHIN_S = 60.0


def main() -> int:
    """Returns the exit code: that of the service when it could not start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--frame", type=Path, default=FRAME)
    parser.add_argument("--out", type=Path, default=Path("var/demo"))
    parser.add_argument("--keep-serving", action="store_true")
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if is_taken(options.port):
        print(f"port {options.port} is in use; choose another: make run PORT=8081", file=sys.stderr)
        return 2
    print("==> loading the engines", flush=True)
    start_s = time.monotonic()
    server = subprocess.Popen([sys.executable, "-m", "sage_edge", "serve", "--port", str(options.port)])
    try:
        if not wait_until_ready(url, server):
            return server.wait()
        print(f"==> ready in {time.monotonic() - start_s:.1f} s at {url}", flush=True)
        show(refine(url, options.frame), options.frame, options.out, url)
        if options.keep_serving:
            print("\nserving; Ctrl-C stops", flush=True)
            return server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()
    return 0


def is_taken(port: int) -> bool:
    """Whether somebody listens there already, who would answer in our service's place."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Poll /readyz; False when the service ended instead (its own line says why)."""
    give_up_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_s and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1) as reply:
                return reply.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    return False


def refine(url: str, frame: Path) -> dict:
    """POST the frame's bytes; the JSON answer."""
    request = urllib.request.Request(
        f"{url}/v1/refine/vision", frame.read_bytes(), {"Content-Type": f"image/{frame.suffix[1:]}"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def show(result: dict, frame: Path, out: Path, url: str) -> None:
    """Print the result and write its mask."""
    out.mkdir(parents=True, exist_ok=True)
    mask = out / f"{frame.stem}.mask.png"
    mask.write_bytes(base64.b64decode(result["answer"]["png_base64"]))
    shares = ", ".join(f"{name} {share:.1%}" for name, share in result["answer"]["classes"].items())
    print(f"""
  frame      {os.path.relpath(frame)}
  steps      {result["steps"]} (halt: {result["halt_reason"]})
  energy     {result["E0"]:.4f} -> {result["E"]:.4f} (predicted pixel error rate, weighted by class)
  trust      {result["trust"]:.2f} (expected mean IoU of this answer)
  cost       {result["time_ms"]["total"]:.0f} ms, {result["ATP_spent"]:.0f} ATP (mJ at the declared power)
  classes    {shares}
  mask       {mask}
  telemetry  {url}/v1/telemetry
  metrics    {url}/metrics""")


if __name__ == "__main__":
    sys.exit(main())
