"""Posts frames to sage_edge: image files, or the newest frame of a camera whose JPEG stream comes on stdin.

Any program that writes JPEGs one after the other will do, such as GStreamer for a USB or a CSI camera:

    gst-launch-1.0 -q v4l2src ! videoconvert ! jpegenc ! fdsink | python demos/camera_client.py -

A camera can be faster than the answers. Then the frames in between are dropped, and counted: what is posted
is always the newest; what it shows as the last one did is not refined again. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

START, END = b"\xff\xd8\xff", b"\xff\xd9"


def main() -> int:
    """Returns 0 when every frame was answered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("frames", nargs="+", help="image files, or - for a stream of JPEGs on stdin")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--plugin", default="vision")
    parser.add_argument("--deadline-ms", type=float, default=200.0, help="an answer by then, the best so far")
    parser.add_argument("--key-file", type=Path, help="file with an API key")
    parser.add_argument(
        "--stream-id", default="camera", help="names the stream on stdin, one for each camera"
    )
    options = parser.parse_args()
    query = urllib.parse.urlencode({"deadline_ms": options.deadline_ms})
    url = f"{options.url}/v1/refine/{options.plugin}?{query}"
    headers = {"X-API-Key": options.key_file.read_text().strip()} if options.key_file else {}
    if options.frames == ["-"]:
        headers["Sage-Stream-Id"] = options.stream_id
        frames = stream(sys.stdin.buffer)
    else:
        frames = files(options.frames)
    failed = 0
    for name, kind, frame in frames:
        try:
            print(f"{name}: {post(url, frame, headers | {'Content-Type': kind})}", flush=True)
        except urllib.error.HTTPError as exc:
            failed += 1
            print(f"{name}: {exc.code} {exc.read().decode(errors='replace')}", file=sys.stderr, flush=True)
        except OSError as exc:
            failed += 1
            print(f"{name}: {exc}", file=sys.stderr, flush=True)
            time.sleep(1)  # nobody there: no need to ask thirty times a second
    return 1 if failed else 0


def post(url: str, frame: bytes, headers: dict[str, str]) -> str:
    """POST one frame; a line about its answer."""
    with urllib.request.urlopen(urllib.request.Request(url, frame, headers), timeout=30) as reply:
        result = json.load(reply)
    shares = ", ".join(f"{name} {share:.1%}" for name, share in result["answer"].get("classes", {}).items())
    return (
        f"{result['steps']} steps ({result['halt_reason']}), trust {result['trust']:.2f}, "
        f"{result['time_ms']['total']:.0f} ms: {shares}"
    )


def files(paths: list[str]) -> Iterator[tuple[str, str, bytes]]:
    """Name, media type and bytes of each file."""
    for path in paths:
        yield path, mimetypes.guess_type(path)[0] or "image/webp", Path(path).read_bytes()


def stream(source: BinaryIO) -> Iterator[tuple[str, str, bytes]]:
    """The newest frame of a stream, each time one is asked for; says at the end how many were dropped."""
    newest = Newest()
    threading.Thread(target=newest.fill, args=(jpegs(source),), daemon=True).start()
    while (frame := newest.take()) is not None:
        yield f"frame {newest.count}", "image/jpeg", frame
    print(f"{newest.count} frames, {newest.dropped} of them dropped for newer ones", file=sys.stderr)


def jpegs(source: BinaryIO) -> Iterator[bytes]:
    """The JPEG images in a stream of bytes."""
    buffer = b""
    while block := source.read1(1 << 16):
        buffer += block
        while (start := buffer.find(START)) >= 0 and (end := buffer.find(END, start + len(START))) >= 0:
            yield buffer[start : end + len(END)]
            buffer = buffer[end + len(END) :]


class Newest:
    """Holds one frame: a newer one takes its place.

    Threads: one fills, one takes.
    """

    def __init__(self) -> None:
        self.count = self.dropped = 0
        self._frame: bytes | None = None
        self._has_ended = False
        self._changed = threading.Condition()

    def fill(self, frames: Iterator[bytes]) -> None:
        """Hold each frame until the next comes."""
        for frame in frames:
            with self._changed:
                self.count += 1
                self.dropped += self._frame is not None
                self._frame = frame
                self._changed.notify()
        with self._changed:
            self._has_ended = True
            self._changed.notify()

    def take(self) -> bytes | None:
        """Wait for a frame that was not taken yet; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._has_ended)
            frame, self._frame = self._frame, None
            return frame


if __name__ == "__main__":
    sys.exit(main())
