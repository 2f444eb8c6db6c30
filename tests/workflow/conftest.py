"""Workflows without Ray, and storage servers: started once when the first test asks, with a place of its own for each test."""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import effects
import pytest
from hypothesis import settings
from proxy import Proxy
from pyarrow.fs import AzureFileSystem
from servers import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    BUCKET,
    OPEN_BUCKET,
    azurite,
    fake_gcs,
    make_buckets,
    s3_address,
    seaweedfs,
)

from airflow_provider_rayworkflow.workflow import testing
from airflow_provider_rayworkflow.workflow.testing import InProcessWorkflows

# The same examples on every run. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, max_examples=40, stateful_step_count=25
)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture
def fresh() -> Iterator[None]:
    with effects.fresh():
        yield


@pytest.fixture
def workflows(fresh: None) -> Iterator[InProcessWorkflows]:
    with testing.in_process() as workflows:
        yield workflows


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as port:
        make_buckets(port)
        yield port


@pytest.fixture(scope="session")
def s3_proxy(s3_port: int) -> Iterator[Proxy]:
    with Proxy(s3_port) as proxy:
        yield proxy


@pytest.fixture
def s3_uri(s3_port: int) -> str:
    return s3_address(s3_port)


@pytest.fixture(scope="session")
def weak_s3_proxy(s3_port: int) -> Iterator[Proxy]:
    """An S3 server that ignores If-None-Match on a PUT, as some do."""
    with Proxy(s3_port, drop=("if-none-match", "authorization", "x-amz-content-sha256")) as proxy:
        yield proxy


@pytest.fixture
def weak_s3_uri(weak_s3_proxy: Proxy) -> str:
    return s3_address(weak_s3_proxy.port).replace(f"@{BUCKET}/", f"@{OPEN_BUCKET}/")


@pytest.fixture(scope="session")
def azure_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with azurite(tmp_path_factory.mktemp("azurite")) as port:
        authority = f"127.0.0.1:{port}"
        AzureFileSystem(
            AZURE_ACCOUNT,
            account_key=AZURE_KEY,
            blob_storage_authority=authority,
            blob_storage_scheme="http",
            dfs_storage_authority=authority,
            dfs_storage_scheme="http",
        ).create_dir(BUCKET)
        yield port


@pytest.fixture
def azure_uri(azure_port: int) -> str:
    return (
        f"abfs://{AZURE_ACCOUNT}:{quote(AZURE_KEY, safe='')}@{BUCKET}/{uuid.uuid4().hex}"
        f"?blob_storage_authority=127.0.0.1:{azure_port}"
        f"&dfs_storage_authority=127.0.0.1:{azure_port}&enable_tls=false"
    )


@pytest.fixture(scope="session")
def gcs_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as port:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/storage/v1/b?project=tests",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        yield port


@pytest.fixture
def gcs_uri(gcs_port: int) -> str:
    return (
        f"gs://anonymous@{BUCKET}/{uuid.uuid4().hex}"
        f"?scheme=http&endpoint_override=127.0.0.1:{gcs_port}"
    )
