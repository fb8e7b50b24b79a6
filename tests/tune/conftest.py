"""Fixtures of these tests: an S3-compatible server on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tune.storage.folder import Storage


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket of an S3-compatible server on this machine."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-nobody")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_REGION", "us-east-1")
        address = f"endpoint_override=http://{host}:{port}"
        Storage(f"s3://results?{address}&allow_bucket_creation=true")._fs.create_dir("results")
        yield f"s3://results/search?{address}"
    server.stop()
