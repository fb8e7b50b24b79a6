"""Addresses of storages: what is complete enough for another process to open, and pyarrow's file system for it."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")
_BUCKET = re.compile(f"({'|'.join(BUCKETS)}):", re.IGNORECASE)  # an address that lacks a slash is one, too


def is_address(text: str) -> bool:
    """False for a path."""
    return "://" in text or _BUCKET.match(text) is not None


def address_of(uri: str) -> str:
    """The address with what this process knows from its environment and another may not: the S3 server.

    Raises:
        ValueError: it has no bucket, or holds a key.
    """
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None:
        expected = "expected credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise ValueError(f"storage: {expected}, found {parts.scheme}://***@{parts.hostname}{parts.path}")
    if parts.scheme in BUCKETS and not parts.netloc:
        raise ValueError(f"storage: expected a bucket, as in {parts.scheme}://bucket/folder, found {uri}")
    options = dict(parse_qsl(parts.query))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if parts.scheme == "s3" and endpoint:
        options.setdefault("endpoint_override", endpoint)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/"), query=urlencode(options)))


def filesystem(uri: str) -> tuple[Any, str]:
    """The file system of an address, and the folder in it.

    Raises:
        ValueError: an address that is not understood.
        OSError: a bucket whose region cannot be found out.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":  # else a file of ten bytes takes the three requests of a multi-part upload
        options = {"allow_delayed_open": "true", **dict(parse_qsl(parts.query))}
        uri = urlunsplit(parts._replace(query=urlencode(options)))
    shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        expected = "expected a folder or an address like s3://bucket/folder"
        raise ValueError(f"storage: {expected}, found {shown}: {error}") from error
    except OSError as error:
        raise OSError(f"{shown}: {str(error).splitlines()[0]}") from error  # below it every place where Java is not
    return filesystem, path
