"""From the bytes of a request to the inputs and options that it carries, still encoded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from sage_edge.errors import (
    CancelledRequestError,
    FrameError,
    FrameTooLargeError,
    InputError,
    MediaTypeError,
    ParameterError,
    SageError,
)
from sage_edge.inputs import JSON_TYPE, OCTETS_TYPE, InputKind, Limits, Part, parse_json, written_shape
from sage_edge.memory import Reservation, parsed_bytes
from sage_edge.messages import named, shown

T = TypeVar("T")
SHAPE_HEADER = "Sage-Tensor-Shape"
DTYPE_HEADER = "Sage-Tensor-Dtype"
FORM_TYPE = "multipart/form-data"
#: Most members of a scene.
MOST_MEMBERS = 16
#: What stands beside ``budget`` in a JSON body, not in it.
PLACE_FIELDS = ("priority", "stream_id", "keep")
#: What a client that names no type sends; the plugin's kind looks at such a body.
_UNNAMED_TYPES = ("", "application/x-www-form-urlencoded")
#: Most options beside the input in a form.
_MOST_FIELDS = 16
#: How often a body is in memory: in pieces and joined; and what forms and JSON copy out of it, of JSON with
#: characters that are not Latin too, one of which widens all.
_JOINED, _COPIED, _WIDENED = 2, 3, 9


@dataclass(frozen=True, slots=True)
class Body:
    """One input as it came, and the options that travelled with it.

    Attributes:
        kind: What its plugin takes.
        part: Its bytes; None where it stands in a JSON document.
        value: What that document has under the kind's key.
        fields: Budget and place of a form or a JSON body, by name.
    """

    kind: InputKind
    part: Part | None
    value: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def decode(self, limits: Limits) -> Any:
        """What the plugin's ``prepare`` is given. Takes its time: not for the event loop.

        Raises:
            InputError: It is no input of the plugin's kind.
        """
        if self.part is None:
            return self.kind.from_json(self.value, limits)
        return self.kind.from_part(self.part, limits)


@dataclass(frozen=True, slots=True)
class SceneBody:
    """A scene as it came.

    Attributes:
        members: Plugin and body of each, in order.
        fields: The shared budget, by name.
    """

    members: Sequence[tuple[str, Body]]
    fields: Mapping[str, Any]


#: Tells which kind the plugin of a name takes, or raises UnknownPluginError.
KindOf = Callable[[str], InputKind]
#: Makes of a body that has come what it holds. Takes its time: not for the event loop.
Parse = Callable[[], T]


@contextmanager
def naming_member(number: int) -> Iterator[None]:
    """Let an error say which member of a scene it is about."""
    try:
        yield
    except SageError as exc:
        exc.args = (f"members[{number}]: {exc}",)
        raise


async def read_body(request: Request, kind: InputKind, max_bytes: int, room: Reservation) -> Parse[Body]:
    """Read a request's body, whatever its type.

    Args:
        request: Whose.
        kind: What its plugin takes.
        max_bytes: Its largest length.
        room: Grows by what the body takes, before it does.

    Raises:
        FrameTooLargeError: It is longer than ``max_bytes``.
        MediaTypeError: Its type is none that holds an input of the kind.
        FrameError: It is no form; or, when it is parsed, it is empty, or without such an input.
        CancelledRequestError: The caller went away while sending it.
        MemoryFullError: There is no room for it.
    """
    media_type = _media_type(request, (*kind.media_types, FORM_TYPE, JSON_TYPE), _UNNAMED_TYPES)
    if media_type == FORM_TYPE:
        form = await _form(request, max_bytes, room, max_files=1, max_fields=_MOST_FIELDS)
        return partial(_from_form, kind, form)
    shape, dtype = request.headers.get(SHAPE_HEADER), request.headers.get(DTYPE_HEADER)
    is_tensor = media_type not in kind.media_types or media_type == OCTETS_TYPE
    described = (media_type, shape, dtype) if is_tensor else (media_type,)
    return partial(_from_body, kind, await _pieces(request, max_bytes, room), *described)


async def read_scene(
    request: Request, kind_of: KindOf, max_bytes: int, room: Reservation
) -> Parse[SceneBody]:
    """Read the members of a scene, from a form or a JSON document; the arguments are those of ``read_body``.

    Raises:
        FrameTooLargeError: All of it is longer than ``max_bytes``.
        MediaTypeError: It is neither.
        FrameError: When it is parsed, it does not hold 1 to MOST_MEMBERS members with an input each.
        UnknownPluginError: When it is parsed, a member names a plugin that is not there.
        CancelledRequestError: The caller went away while sending it.
    """
    if _media_type(request, (FORM_TYPE, JSON_TYPE)) == FORM_TYPE:
        form = await _form(request, max_bytes, room, max_files=MOST_MEMBERS, max_fields=MOST_MEMBERS + 1)
        return partial(_scene_from_form, kind_of, form)
    pieces = await _pieces(request, max_bytes, room)
    return lambda: _scene_from_document(kind_of, parse_json(b"".join(pieces), "body"))


async def read_document(request: Request, max_bytes: int, room: Reservation) -> Parse[Any]:
    """Read a JSON document; the arguments are those of ``read_body``.

    Raises:
        FrameTooLargeError: It is longer than ``max_bytes``.
        MediaTypeError: It is of another type.
        InputError: When it is parsed, it is not valid JSON.
        CancelledRequestError: The caller went away while sending it.
    """
    _media_type(request, (JSON_TYPE,))
    pieces = await _pieces(request, max_bytes, room)
    return lambda: parse_json(b"".join(pieces), "body", InputError)


def _media_type(request: Request, expected: Sequence[str], tolerated: Sequence[str] = ()) -> str:
    media_type = _bare(request.headers.get("content-type", ""))
    if media_type not in (*expected, *tolerated):
        names = ", ".join(dict.fromkeys(expected))
        raise MediaTypeError(f"Content-Type: expected one of {names}, got {media_type!r}")
    return media_type


def _bare(content_type: str) -> str:
    """A media type without its parameters, lower case."""
    return content_type.partition(";")[0].strip().lower()


def _limited(request: Request, max_bytes: int, room: Reservation) -> Request:
    """The same request, which stops reading at the limit, or where there is no room, instead of behind it.

    A length that is declared is reserved at once. What may be JSON counts as what it will be parsed to.

    The fields of a form are decoded as Latin-1 here, whatever its type says: that keeps every byte of them.

    Raises:
        FrameTooLargeError: The body says that it is longer.
        MediaTypeError: The body is compressed.
        MemoryFullError: There is no room for what it says.
    """
    seen = reserved = 0
    is_form = _bare(request.headers.get("content-type", "")) == FORM_TYPE
    copies = _COPIED if is_form or _bare(request.headers.get("content-type", "")) == JSON_TYPE else 0

    def reserve(length: int) -> None:
        nonlocal reserved
        room.grow(max(0, length - reserved) * _JOINED)
        reserved = max(reserved, length)

    async def receive() -> Message:
        nonlocal seen, copies
        message = await request.receive()
        piece = message.get("body", b"")
        if seen == 0 and piece[:64].lstrip().startswith((b"{", b"[")):
            copies = _COPIED
        if copies == _COPIED and not is_form and (not piece.isascii() or b"\\u" in piece):
            room.grow((_WIDENED - _COPIED) * seen)
            copies = _WIDENED
        seen += len(piece)
        if seen > max_bytes:
            raise FrameTooLargeError(f"body: expected at most {max_bytes} bytes, got more")
        reserve(seen)
        if copies:
            room.grow(copies * len(piece) + parsed_bytes(piece))
        return message

    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise MediaTypeError(
            f"Content-Encoding: expected none, since bodies are taken as they are, got {coding!r}"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise FrameTooLargeError(f"body: expected at most {max_bytes} bytes, got {declared}")
    if declared.isdecimal():
        reserve(int(declared))
    headers = [
        (name, value + b"; charset=latin-1" if name == b"content-type" else value)
        for name, value in request.scope["headers"]
    ]
    return Request({**request.scope, "headers": headers}, receive)


async def _pieces(request: Request, max_bytes: int, room: Reservation) -> list[bytes]:
    """A body as it came: to join its pieces takes its time as well."""
    try:
        return [piece async for piece in _limited(request, max_bytes, room).stream()]
    except ClientDisconnect as exc:
        raise _gone() from exc


async def _form(
    request: Request, max_bytes: int, room: Reservation, *, max_files: int, max_fields: int
) -> list[tuple[str, Part]]:
    """The parts of a form in order, each by its name: those that came as files, and those that did not."""
    try:
        form = await _limited(request, max_bytes, room).form(
            max_files=max_files, max_fields=max_fields, max_part_size=max_bytes
        )
    except ClientDisconnect as exc:
        raise _gone() from exc
    except HTTPException as exc:
        raise FrameError(f"body: not a usable form: {exc.detail}") from exc
    try:
        return [(_text(name), await _part(entry)) for name, entry in form.multi_items()]
    finally:
        await form.close()


async def _part(entry: UploadFile | str) -> Part:
    if isinstance(entry, UploadFile):
        return Part(await entry.read(), _bare(entry.content_type or ""))
    return Part(entry.encode("latin-1"))


def _text(latin: str) -> str:
    """What was decoded as Latin-1, decoded as UTF-8."""
    return latin.encode("latin-1").decode("utf-8", "replace")


def _gone() -> CancelledRequestError:
    return CancelledRequestError("the caller went away while sending the body")


def _from_body(kind: InputKind, pieces: Sequence[bytes], media_type: str, *tensor: str | None) -> Body:
    content = b"".join(pieces)
    if media_type == JSON_TYPE and content:
        return _from_document(kind, parse_json(content, "body"))
    return _from_part(kind, Part(content, media_type, *tensor), "body")


def _from_form(kind: InputKind, parts: Sequence[tuple[str, Part]]) -> Body:
    names, held = Counter(name for name, _ in parts), dict(parts)
    if kind.key not in held:
        raise FrameError(
            f"body: expected a {kind.name} in the form field {kind.key!r}, got fields {named(names)}"
        )
    if (count := max(names.values())) > 1:
        raise ParameterError(
            f"{max(names, key=names.__getitem__)}: expected one such form field, got {count}"
        )
    part = held.pop(kind.key)
    fields = {name: other.content.decode("utf-8", "replace") for name, other in held.items()}
    part = replace(part, shape=fields.pop("shape", None), dtype=fields.pop("dtype", None))
    return _from_part(kind, part, f"form field {kind.key!r}", fields)


def _from_part(kind: InputKind, part: Part, place: str, fields: Mapping[str, Any] | None = None) -> Body:
    """An input as bytes, or a whole JSON body of it; what the kind knows no type of counts as unnamed."""
    if not part.content:
        raise FrameError(f"{place}: expected a {kind.name}, got no bytes")
    is_known = part.media_type in kind.media_types
    may_be_json = not is_known or part.media_type in (JSON_TYPE, OCTETS_TYPE)
    if part.media_type == JSON_TYPE and not is_known:
        body = _from_document(kind, parse_json(part.content, "body"))
    elif may_be_json and (document := _document_in(part.content, kind)):
        body = _from_document(kind, document)
    else:
        body = Body(kind, part if is_known else replace(part, media_type=""))
    return replace(body, fields={**body.fields, **(fields or {})})


def _document_in(content: bytes, kind: InputKind) -> Mapping[str, Any] | None:
    """The JSON body that bytes of no named type hold, if they do."""
    if not content[:64].lstrip().startswith(b"{"):
        return None
    try:
        document = parse_json(content, "body")
    except FrameError:
        return None
    return document if isinstance(document, dict) and kind.key in document else None


def _scene_from_form(kind_of: KindOf, parts: Sequence[tuple[str, Part]]) -> SceneBody:
    """Each part is a member, its field's name the plugin; the field ``scene`` holds all that is no input."""
    given = [part for name, part in parts if name == "scene"] or [Part(b"{}")]
    inputs = [(name, part) for name, part in parts if name != "scene"]
    scene = parse_json(given[0].content, "scene") if len(given) == 1 else None
    if not isinstance(scene, dict):
        raise FrameError("scene: expected one form field with a JSON object, got another value, or several")
    options = scene.pop("members", [{} for _ in inputs])
    if not isinstance(options, list) or len(options) != len(inputs):
        raise FrameError(
            f"scene.members: expected options for each of the {len(inputs)} inputs, got {shown(options)}"
        )
    members = []
    for number, ((plugin, part), option) in enumerate(zip(inputs, options, strict=True)):
        with naming_member(number):
            members.append((plugin, _member(kind_of(plugin), part, option, plugin)))
    return _scene(members, scene)


def _member(kind: InputKind, part: Part, options: Any, name: str) -> Body:
    if not isinstance(options, dict):
        raise FrameError(f"scene.members: expected an object of options, got {shown(options)}")
    shape, dtype = written_shape(options.pop("shape", None)), options.pop("dtype", None)
    tensor = replace(part, shape=shape, dtype=dtype)
    return _from_part(kind, tensor, f"form field {name!r}", _fields(options))


def _scene_from_document(kind_of: KindOf, document: Any) -> SceneBody:
    entries = document.pop("members", None) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise FrameError('body: expected {"members": [{"plugin": "…", "frame": {…}}, …]}')
    members = []
    for number, entry in enumerate(entries[: MOST_MEMBERS + 1]):
        with naming_member(number):
            plugin = entry.pop("plugin", None) if isinstance(entry, dict) else None
            if not isinstance(plugin, str):
                raise FrameError(f"expected an object that names its plugin, got {shown(entry)}")
            members.append((plugin, _from_document(kind_of(plugin), entry)))
    return _scene(members, document)


def _scene(members: Sequence[tuple[str, Body]], fields: Mapping[str, Any]) -> SceneBody:
    if not 1 <= len(members) <= MOST_MEMBERS:
        count = "more" if members else "none"
        raise FrameError(f"members: expected 1 to {MOST_MEMBERS} of them, got {count}")
    return SceneBody(members, fields)


def _from_document(kind: InputKind, document: Any) -> Body:
    """The input of a JSON object, and the options beside it."""
    if not isinstance(document, dict) or kind.key not in document:
        came = f"the keys {named(document)}" if isinstance(document, dict) else shown(document)
        raise FrameError(f"body: expected {_outline({kind.key: kind.example})}, got {came}")
    return Body(kind, None, document[kind.key], _fields(document, kind.key))


def _outline(example: Any) -> str:
    """An example in JSON, without what is deep inside."""
    if not isinstance(example, dict):
        return json.dumps(example, ensure_ascii=False) if isinstance(example, str) else "…"
    return "{" + ", ".join(f'"{name}": {_outline(value)}' for name, value in example.items()) + "}"


def _fields(document: Mapping[str, Any], content: str = "") -> dict[str, Any]:
    """The options of a JSON object, those of its budget and those beside it, as one."""
    budget = document.get("budget", {})
    beside = {name: value for name, value in document.items() if name not in (content, "budget")}
    if not isinstance(budget, dict) or not set(beside) <= set(PLACE_FIELDS):
        known = " and ".join(name for name in (content, "budget") if name)
        place = ", ".join(PLACE_FIELDS)
        raise FrameError(f"body: expected the keys {known} (an object), {place}, got {named(document)}")
    if misplaced := set(budget) & set(PLACE_FIELDS):
        raise FrameError(f"budget: expected {', '.join(sorted(misplaced))} beside it, got it inside")
    return {**budget, **beside}
