"""Posts batches of records to a URL, signed as the Standard Webhooks specification says.

`webhook-id` is the batch's idempotency key and stays the same however often a batch is sent, so a
receiver that remembers it sees each batch once. A batch that is refused whole is halved until the bad
records are alone. Specification: https://www.standardwebhooks.com
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import socket
import time
import uuid
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from functools import cached_property

import orjson
import urllib3

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Batch, Guarantee

ANSWER_LIMIT = 1 << 20
REFUSED = (400, 413, 422)  # the batch is at fault, or one record of it
LATER = (408, 425, 429)
WHAT_TO_DO = {
    401: "the receiver does not accept the authorization",
    403: "the receiver forbids it",
    404: "there is nothing at this URL",
    410: "the receiver has switched this webhook off for good",
}


class DestinationWebhook(Destination):
    """The connector; its object is a name that the receiver is told."""

    name = "destination-webhook"
    sync_modes = ("append", "append_dedup", "update")
    guarantee = Guarantee.AT_LEAST_ONCE
    batch_size = 500
    config_schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Webhook",
        "type": "object",
        "required": ["url", "signing_secret"],
        "properties": {
            "url": {"type": "string", "pattern": "^https?://[^/@]+(/|$)", "description": "Where to post"},
            "signing_secret": {
                "type": "string",
                "minLength": 8,
                "description": "Shared with the receiver: whsec_ and base64",
                "airbyte_secret": True,
            },
            "authorization": {
                "type": "string",
                "description": "Value of the Authorization header",
                "airbyte_secret": True,
            },
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 120, "default": 30},
            "allow_private_addresses": {
                "type": "boolean",
                "default": False,
                "description": "Also post to addresses inside this network, and without TLS",
            },
        },
    }

    def check(self) -> None:
        """Post a batch without records; a receiver that finds it malformed is there all the same."""
        self._post(f"check-{uuid.uuid4().hex}", b'{"type":"traitmesh.check","data":{"records":[]}}')

    def discover(self) -> list[DestinationObject]:
        """List the one object that any receiver has."""
        return [DestinationObject("records", mode, {"type": "object"}) for mode in self.sync_modes]

    def write(self, batch: Batch) -> list[Reject]:
        """Post the batch and return what the receiver rejects."""
        rejects = self._send(batch)
        if len(batch.records) >= 50 and len(rejects) > len(batch.records) / 5:
            raise ConfigError(f"the receiver refuses {len(rejects)} of {len(batch.records)} records")
        return rejects

    def _send(self, batch: Batch) -> list[Reject]:
        records = [
            {"operation": r.operation, "idempotency_key": r.idempotency_key, "data": r.data} for r in batch.records
        ]
        about = {"object": batch.stream.object_name, "key": batch.stream.primary_key, "records": records}
        body = orjson.dumps({"type": "traitmesh.batch", "data": about})
        status, answer = self._post(batch.idempotency_key or uuid.uuid4().hex, body)
        if status not in REFUSED:
            return _rejected(answer, len(records))
        if len(records) == 1:
            return [Reject(0, f"http_{status}", f"the receiver refuses the record with status {status}")]
        middle = len(records) // 2
        later = self._send(Batch(batch.stream, batch.records[middle:]))
        return self._send(Batch(batch.stream, batch.records[:middle])) + [
            Reject(middle + reject.index, reject.code, reject.message) for reject in later
        ]

    def _post(self, webhook_id: str, body: bytes) -> tuple[int, bytes]:
        """Return status and answer of what was delivered or refused; raise what is to be done else."""
        headers = signed(self.config["signing_secret"], webhook_id, int(time.time()), body)
        headers |= {"content-type": "application/json", "user-agent": "traitmesh"} | self.trace_headers()
        if "authorization" in self.config:
            headers["authorization"] = self.config["authorization"]
        try:
            response = self._pool.request(
                "POST",
                self._url.request_uri,
                body=body,
                headers=headers | {"host": self._url.netloc or ""},
                redirect=False,
                retries=False,
                preload_content=False,
            )
            answer = response.read(ANSWER_LIMIT)
            response.drain_conn() if len(answer) < ANSWER_LIMIT else response.close()
        except (urllib3.exceptions.HTTPError, OSError):
            raise TransientError("the receiver is not reachable or did not answer in time") from None
        status = response.status
        if status in LATER or status >= 500:
            wait = seconds_of(response.headers.get("retry-after"))
            raise TransientError(f"the receiver answered with status {status}", retry_after=wait)
        if status >= 300 and status not in REFUSED:
            why = WHAT_TO_DO.get(status, "redirects are not followed" if status < 400 else "check the URL")
            raise ConfigError(f"the receiver answered with status {status}: {why}")
        return status, answer

    @cached_property
    def _url(self) -> urllib3.util.Url:
        try:
            return urllib3.util.parse_url(self.config["url"])
        except urllib3.exceptions.LocationParseError:
            raise ConfigError("config.url: is not a URL") from None

    @cached_property
    def _pool(self) -> urllib3.HTTPConnectionPool:
        """Connections to the one address that was checked: a second look-up could tell another."""
        host = (self._url.host or "").strip("[]")
        address = checked_address(host, self._url.port, private=self.config["allow_private_addresses"])
        timeout = urllib3.Timeout(connect=10, read=self.config["timeout"])
        if self._url.scheme == "https":
            return urllib3.HTTPSConnectionPool(
                address, self._url.port, timeout=timeout, server_hostname=host, assert_hostname=host
            )
        if not self.config["allow_private_addresses"]:
            raise ConfigError("config.url: must begin with https:// (records are personal)")
        return urllib3.HTTPConnectionPool(address, self._url.port, timeout=timeout)


def signed(secret: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of Standard Webhooks; `ConfigError` if the secret is not base64."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("config.signing_secret: must be whsec_ and base64") from None
    content = f"{webhook_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    signature = f"v1,{digest}"
    return {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def checked_address(host: str, port: int | None, *, private: bool) -> str:
    """Return an address of `host`; `ConfigError` if one of them is not public and that is not allowed."""
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise TransientError("the receiver's name cannot be resolved") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not private and not all(map(is_public, addresses)):
        raise ConfigError("config.url: leads to a private address (allow_private_addresses permits it)")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is out in the internet, also one that wraps another."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which names seconds or a moment."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _rejected(answer: bytes, count: int) -> list[Reject]:
    """Return the rejects of an answer {"rejected": [{"index", "reason"}]}; most receivers say nothing."""
    try:
        body = orjson.loads(answer)
    except ValueError:
        return []
    listed: Sequence[object] = body.get("rejected") or [] if isinstance(body, dict) else []
    rejects = {}
    for entry in listed:
        index = entry.get("index") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or type(index) is not int or not 0 <= index < count:
            raise ConfigError("the receiver's answer rejects a record that was not sent: check its index")
        reason = str(entry.get("reason") or "rejected")
        code = reason if re.fullmatch(r"[a-z0-9_]{1,50}", reason) else "rejected"
        rejects[index] = Reject(index, code, reason[:500])
    return list(rejects.values())
