"""HTTP: routes, wire formats, and errors as status codes. FastAPI lives here and nowhere else."""

from sage_edge.service.app import create_app
from sage_edge.service.server import serve

__all__ = ["create_app", "serve"]
