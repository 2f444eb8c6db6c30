"""A cluster behind https: its certificate is checked, against a bundle of one's own if need be."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from airflow.sdk.log import redact
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_rayworkflow.connection.jobs_api import RayJobs
from airflow_provider_rayworkflow.exceptions import RayWorkflowUnreachableError
from airflow_provider_rayworkflow.hooks import RayWorkflowHook

pytestmark = pytest.mark.timeout(60)


class Dashboard(BaseHTTPRequestHandler):
    """As far as a connection's test asks."""

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        is_version = self.path == "/api/version"
        self.send_response(200 if is_version else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"ray_version": "2.60.0"}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that is its own authority, and its key in the same folder."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a cluster for tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "ca.pem"


@pytest.fixture(scope="module")
def server(ca: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    server.seen = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, ca.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connect(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def define(**extra: object) -> RayWorkflowHook:
        connection = {
            "conn_type": "ray_workflow",
            "host": f"https://127.0.0.1:{server.server_port}",
            "password": "the-token",
            "extra": {"storage": str(tmp_path), **extra},
        }
        monkeypatch.setenv("AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT", json.dumps(connection))
        return RayWorkflowHook()

    return define


def test_a_certificate_without_a_known_issuer_is_refused(connect):
    cluster = connect().settings.cluster
    with pytest.raises(RayWorkflowUnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        RayJobs(cluster).version()


@pytest.mark.parametrize("how", ["ca", "verify"])
def test_the_connection_names_the_issuer_or_switches_verification_off(connect, ca: Path, how: str):
    extra = {"ca": str(ca)} if how == "ca" else {"verify": False}
    assert RayJobs(connect(**extra).settings.cluster).version() == "2.60.0"


def test_the_tests_button_takes_the_same_way_with_token_and_headers(
    connect, ca: Path, server: ThreadingHTTPServer
):
    works, said = connect(ca=str(ca), headers={"X-Gate": "open-sesame"}).test_connection()
    assert works, said
    assert "runs Ray 2.60.0 and takes the token" in said
    sent = server.seen[-1]
    assert (sent["authorization"], sent["x-gate"]) == ("Bearer the-token", "open-sesame")
    assert redact("a log line with open-sesame") == "a log line with ***"
