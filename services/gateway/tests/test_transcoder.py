"""REST in front of a real gRPC service: calls, bodies, streams and errors over the wire."""

import hashlib
import socket
import threading
import time

import pytest

from services.gateway.front import MAX_ADDRESS_BYTES, MAX_HEADER_BYTES
from services.gateway.tests.conftest import LIMITS
from services.gateway.tests.library import Client, Library
from services.gateway.transcoding.transcoder import CHUNK_BYTES

BOOK = "/v1/shelves/s/books/b"


def test_get_and_its_answer(client: Client) -> None:
    answer = client.get(BOOK)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"method": "GetBook", "request": 'name: "shelves/s/books/b"'}
    assert client.get("/v1/old/shelves/s/books/b").json == answer.json


def test_every_part_of_a_request_arrives(client: Client) -> None:
    answer = client.post("/v1/shelves/s/books?bookId=b&validateOnly=true", {"displayName": "B", "copies": "3"})
    assert answer.json["request"] == (
        'parent: "shelves/s" book_id: "b" book { display_name: "B" copies: 3 } validate_only: true'
    )
    answer = client.send("PATCH", BOOK, b'{"pages": 0}', "application/json; charset=UTF-8")
    assert answer.json["request"] == 'book { name: "shelves/s/books/b" pages: 0 }'
    assert client.send("DELETE", BOOK).json == {}
    answer = client.get("/v1/shelves/s/books?tags=a&tags=b&genres=GENRE_FICTION&like.author.displayName=x")
    assert answer.json["request"] == (
        'parent: "shelves/s" tags: "a" tags: "b" genres: GENRE_FICTION like { author { display_name: "x" } }'
    )


def test_trap_1_an_encoded_slash_is_never_a_slash(client: Client) -> None:
    answer = client.get("/v1/shelves/s%2Fbooks%2Fb/books")
    assert (answer.status, answer.fields) == (400, ["parent"])
    assert client.get("/v1/shelves%2Fs/books").status == 404
    answer = client.get("/v1/files/a%2Fb/c")
    assert answer.json["request"] == 'path: "a%2Fb/c"'


def test_trap_2_a_verb_is_matched_raw(client: Client) -> None:
    assert client.send("POST", f"{BOOK}:promote").json["method"] == "PromoteBook"
    assert client.get(f"{BOOK}%3Apromote").json == {"method": "GetBook", "request": 'name: "shelves/s/books/b:promote"'}
    assert client.send("POST", f"{BOOK}%3Apromote").status == 405
    for method in ("GET", "POST"):
        assert client.send(method, f"{BOOK}:nope").status == 404
    form = client.send("POST", f"{BOOK}:nope", b"a=b", "application/x-www-form-urlencoded")
    assert form.status == 404


@pytest.mark.parametrize(
    "path", ["/v1/shelves//books", "/v1/shelves/s/books/", "//v1/shelves/s/books", "/v1/shelves/s//books"]
)
def test_trap_3_empty_segments_match_nothing(client: Client, path: str) -> None:
    assert client.get(path).status == 404


@pytest.mark.parametrize("segment", ["%00", "%ff", "%C3%28", "%2e%2e", "..", ".", "%", "%g1", "a%2Fb"])
def test_trap_3_hostile_segments_are_refused(client: Client, segment: str) -> None:
    answer = client.get(f"/v1/shelves/s/books/{segment}")
    assert (answer.status, answer.fields) == (400, ["name"])


def test_trap_4_nothing_is_ignored(client: Client, library: Library) -> None:
    calls = library.calls
    assert client.get(f"{BOOK}?x=1").fields == ["x"]
    assert client.get(f"{BOOK}?name=shelves/s/books/c").fields == ["name"]
    assert client.post("/v1/everything:echo", {"x": 1}).fields == ["x"]
    assert client.post("/v1/everything:echo", b"{} {}").fields == ["body"]
    assert client.post("/v1/everything:echo", b"[]").status == 400
    assert client.post("/v1/everything:echo", b'{"author": {}, "author": {}}').status == 400
    assert client.post("/v1/shelves/s/books", b'{"displayName": "a", "display_name": "b"}').fields == [
        "book.display_name"
    ]
    assert client.post("/v1/everything:echo", {"genre": 99}).fields == ["genre"]
    assert client.send("GET", BOOK, b"{}", "application/json").fields == ["body"]
    assert library.calls == calls


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json; charset=latin1",
    ],
)
def test_trap_5_only_json_is_a_call(client: Client, library: Library, content_type: str) -> None:
    calls = library.calls
    answer = client.send("POST", "/v1/everything:echo", b"{}", content_type)
    assert (answer.status, answer.fields) == (415, ["content-type"])
    assert client.send("POST", "/v1/everything:echo", b"{}").status == 415
    assert client.send("POST", f"{BOOK}:promote", b"", content_type).status == 415
    assert client.send("POST", "/v1/everything:echo", b"{}", "application/json", Content_Encoding="gzip").status == 415
    assert library.calls == calls


def test_trap_5_a_method_cannot_be_overridden(client: Client) -> None:
    form = client.send("POST", BOOK, b"name=x", "application/x-www-form-urlencoded", X_HTTP_Method_Override="DELETE")
    assert form.status == 405


def test_trap_6_poison_never_gets_in(client: Client) -> None:
    for value in (b"NaN", b"1e400", b"-Infinity", b"9" * 400, b"1" * 5000):
        assert client.post("/v1/everything:echo", b'{"struct": {"a": ' + value + b"}}").fields == ["struct.a"]
    deep = b'{"struct": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    assert client.post("/v1/everything:echo", deep).status == 400
    deepest = {"a": 1}
    for _ in range(27):
        deepest = {"a": deepest}  # type: ignore[dict-item]
    assert client.post("/v1/everything:echo", {"struct": deepest}).json["struct"] == deepest


def test_trap_7_details_survive_one_that_is_unknown(client: Client) -> None:
    answer = client.get("/v1/failures/NOT_FOUND")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert problem.pop("traceId") == answer.headers["x-trace-id"]
    assert problem == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "as the service said it",
        "code": "NOT_FOUND",
        "reason": "BOOK_TROUBLE",
        "domain": "library",
        "metadata": {"book": "b1"},
        "violations": [{"field": "book.name", "description": "bad"}],
    }


def test_trap_7_other_methods(client: Client) -> None:
    answer = client.send("PUT", BOOK)
    assert answer.status == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    answer = client.send("OPTIONS", BOOK)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH", b"")
    assert client.send("OPTIONS", "/v1/nothing").status == 404
    answer = client.send("HEAD", BOOK)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(client.get(BOOK).body)


def test_trap_8_query_values(client: Client) -> None:
    for query in ("pageSize=1&page_size=1", "pageSize=1,2", "pageSize=", "like=x", "genres=9", "tags.x=1"):
        assert client.get(f"/v1/shelves/s/books?{query}").status == 400
    answer = client.get("/v1/shelves/s/books?page%5Fsize=5&tags=a,b&tags=%C3%A9")
    assert answer.json["request"] == 'parent: "shelves/s" page_size: 5 tags: "a,b" tags: "é"'


def test_trap_9_a_body_cannot_name_another_than_the_path(client: Client) -> None:
    answer = client.send("PATCH", BOOK, b'{"name": "shelves/s/books/c", "pages": 1}', "application/json")
    assert (answer.status, answer.fields) == (400, ["book.name"])
    answer = client.send("PATCH", BOOK, b'{"etag": "mine", "pages": 1}', "application/json")
    assert answer.json["request"] == 'book { name: "shelves/s/books/b" pages: 1 }'


def test_trap_10_json_of_answers(client: Client) -> None:
    answer = client.post("/v1/everything:echo", {"int64": 9007199254740993, "genre": 1, "duration": "1.5s"}).json
    assert answer["int64"] == "9007199254740993"
    assert answer["genre"] == "GENRE_FICTION"
    assert answer["duration"] == "1.500s"
    assert answer["string"] == ""
    assert answer["repeatedInt64"] == []
    assert "optionalInt32" not in answer
    assert "author" not in answer


def test_a_method_without_a_path_is_out_of_reach(client: Client) -> None:
    for method in ("GET", "POST"):
        assert client.send(method, "/library.v1.Library/Burn", b"").status == 404


def test_an_empty_body_is_the_default_request(client: Client) -> None:
    assert client.send("POST", f"{BOOK}:promote").status == 200
    assert client.send("POST", f"{BOOK}:promote", b"").status == 200


def test_limits_name_themselves(client: Client) -> None:
    big = b'{"string": "' + b"x" * LIMITS.json_bytes + b'"}'
    answer = client.post("/v1/everything:echo", big)
    assert (answer.status, answer.fields) == (413, ["body"])
    assert answer.json["metadata"] == {"limit": "json_body_bytes", "value": str(LIMITS.json_bytes)}
    assert client.get(f"{BOOK}?x={'y' * MAX_ADDRESS_BYTES}").status == 414
    assert client.send("GET", BOOK, X_Big="y" * MAX_HEADER_BYTES).status == 431
    assert client.get(f"{BOOK}?{'x=1&' * 2000}").status == 400


def test_a_body_that_does_not_say_its_size_is_limited_too(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/everything:echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(3):
            connection.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
        assert b" 413 " in connection.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/shelves/s/books/b HTTP/1.1\r\n\r\n",
        b"POST /v1/everything:echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v1/shelves/s/books/\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["no host", "two lengths", "raw bytes in the path"],
)
def test_malformed_http_is_refused(client: Client, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head)
        assert b" 400 " in connection.recv(1000).split(b"\r\n")[0]


def test_an_upgrade_is_an_ordinary_request(client: Client) -> None:
    answer = client.send("GET", BOOK, Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13")
    assert answer.json["method"] == "GetBook"


def test_a_raw_answer_is_passed_through(client: Client) -> None:
    answer = client.get(f"{BOOK}:page")
    assert (answer.headers["content-type"], answer.json) == ("application/json", {"name": "shelves/s/books/b"})


def test_a_raw_body_goes_as_it_is(client: Client) -> None:
    data = bytes(range(256)) * 100
    answer = client.send("POST", f"{BOOK}:cover?validateOnly=true", data, "image/png")
    assert 'content_type: "image/png"' in answer.json["request"]
    assert "validate_only: true" in answer.json["request"]
    assert client.send("POST", f"{BOOK}:cover", b"x").status == 200
    assert client.send("POST", f"{BOOK}:cover?cover.data=x", b"x").status == 400
    answer = client.send("POST", f"{BOOK}:cover", b"x" * (LIMITS.raw_bytes + 1))
    assert (answer.status, answer.json["metadata"]["limit"]) == (413, "raw_body_bytes")


def test_an_upload_is_a_stream_of_chunks(client: Client) -> None:
    data = bytes(range(251)) * 4000
    answer = client.send("POST", "/v1/shelves/s/uploads?fileName=f.gz", data, "application/gzip")
    uploaded = answer.json
    sizes = uploaded.pop("chunkSizes")
    assert uploaded == {
        "parent": "shelves/s",
        "fileName": "f.gz",
        "contentType": "application/gzip",
        "byteCount": str(len(data)),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert sizes == [CHUNK_BYTES] * (len(data) // CHUNK_BYTES) + [len(data) % CHUNK_BYTES, 0]


def test_an_upload_may_be_empty_and_not_too_large(client: Client) -> None:
    assert client.send("POST", "/v1/shelves/s/uploads", b"").json["chunkSizes"] == [0]
    assert client.send("POST", "/v1/shelves/s/uploads?x=1", b"").fields == ["x"]
    answer = client.send("POST", "/v1/shelves/s/uploads", b"", Content_Length=str(LIMITS.stream_bytes + 1))
    assert (answer.status, answer.json["metadata"]["limit"]) == (413, "stream_body_bytes")


@pytest.mark.parametrize("_attempt", range(10))
def test_an_upload_that_is_refused_early_says_why(client: Client, _attempt: int) -> None:
    answer = client.send("POST", "/v1/shelves/s/uploads?fileName=refused", b"x" * (3 * 1024 * 1024))
    assert (answer.status, answer.json["detail"]) == (409, "the file is there already")


def test_an_upload_that_is_refused_early_need_not_be_whole(client: Client) -> None:
    head = b"POST /v1/shelves/s/uploads?fileName=refused HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head + b"x" * 1_000_000)
        assert b" 409 " in connection.recv(1000).split(b"\r\n")[0]


def test_an_upload_that_breaks_off_is_never_whole_to_the_service(client: Client, library: Library) -> None:
    uploads = library.uploads
    head = b"POST /v1/shelves/s/uploads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    library.cancelled.clear()
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head + b"80000\r\n" + b"x" * 0x80000 + b"\r\n")
        time.sleep(0.2)
    assert library.cancelled.wait(2)
    piece = b"80000\r\n" + b"x" * 0x80000 + b"\r\n"
    library.cancelled.clear()
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(head + piece * (LIMITS.stream_bytes // 0x80000 + 1))
        assert b" 413 " in connection.recv(1000).split(b"\r\n")[0]
    assert library.cancelled.wait(2)
    assert library.uploads == uploads


def test_a_stream_comes_as_it_is(client: Client) -> None:
    answer = client.get(f"{BOOK}:read?pages=3")
    assert answer.headers["content-type"].startswith("text/x-page")
    assert answer.body == b"page 1;page 2;page 3;"
    answer = client.get(f"{BOOK}:read")
    assert (answer.status, answer.body) == (200, b"")
    assert client.send("HEAD", f"{BOOK}:read?endless=true").status == 200


def test_a_stream_that_breaks_is_not_ended(client: Client) -> None:
    request = f"GET {BOOK}:read?pages=3&failAfter=2 HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(request.encode())
        received = b""
        while more := connection.recv(1000):
            received += more
    assert b"page 2;" in received
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", [f"{BOOK}:read?endless=true", "/v1/shelves/s/books/slow:page"])
def test_whoever_goes_away_ends_the_call(client: Client, library: Library, path: str) -> None:
    library.cancelled.clear()
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    time.sleep(0.2)
    assert not library.cancelled.is_set()
    connection.close()
    assert library.cancelled.wait(1)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *[
            ("CANCELLED", 499),
            ("UNKNOWN", 500),
            ("INVALID_ARGUMENT", 400),
            ("DEADLINE_EXCEEDED", 504),
            ("NOT_FOUND", 404),
        ],
        *[("ALREADY_EXISTS", 409), ("PERMISSION_DENIED", 403), ("UNAUTHENTICATED", 401), ("RESOURCE_EXHAUSTED", 429)],
        *[("FAILED_PRECONDITION", 400), ("ABORTED", 409), ("OUT_OF_RANGE", 400), ("UNIMPLEMENTED", 501)],
        *[("INTERNAL", 500), ("UNAVAILABLE", 503), ("DATA_LOSS", 500)],
    ],
)
def test_every_code_has_its_status(client: Client, code: str, status: int) -> None:
    answer = client.get(f"/v1/failures/{code}")
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["detail"] == "as the service said it"


def test_a_crash_tells_nothing(client: Client) -> None:
    answer = client.get("/v1/failures/crash")
    assert (answer.status, answer.json["detail"]) == (500, "the service failed")
    assert b"secret" not in answer.body
    assert client.get("/v1/failures/plain").json["detail"] == "no such book"


def test_many_at_once(client: Client) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(client.get(f"/v1/shelves/s/books/b{n}").json["request"]))
        for n in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f'name: "shelves/s/books/b{n}"' for n in range(30))


def test_every_answer_has_the_security_headers(client: Client) -> None:
    for path in (BOOK, "/v1/nothing", f"{BOOK}:read?pages=1"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert int(headers["x-trace-id"], 16) > 0
    assert "access-control-allow-origin" not in client.send("OPTIONS", BOOK, Origin="https://evil.test").headers
