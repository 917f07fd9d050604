"""Makes certificates with openssl, which must be installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from brokers import required

from infra.processes import HOST

KEY_PASSWORD = "key-hunter2"
"""Password of ``client-encrypted.key``."""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificates(folder: Path) -> None:
    """Make a CA ``ca`` and one that signed nothing of ours, ``other-ca``, and certificates with their keys.

    ``server`` is for 127.0.0.1 only. ``client`` is signed by the CA, ``stranger`` by the other one.
    ``client-encrypted.key`` is the client's key with a password. ``keystore.pem`` holds the server's key and
    certificate.
    """
    if shutil.which("openssl") is None:
        reason = "no openssl to make certificates with"
        pytest.fail(reason) if required("kafka") else pytest.skip(reason)
    for ca in ("ca", "other-ca"):
        _openssl("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={ca}",
                 "-keyout", folder / f"{ca}.key", "-out", folder / f"{ca}.pem")  # fmt: skip
    for name, subject, ca in (("server", f"IP:{HOST}", "ca"), ("client", "DNS:client", "ca"),
                              ("stranger", "DNS:stranger", "other-ca")):  # fmt: skip
        extension = folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={subject}\n")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}",
                 "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")  # fmt: skip
        _openssl("x509", "-req", "-days", "2", "-in", folder / f"{name}.csr", "-CA", folder / f"{ca}.pem",
                 "-CAkey", folder / f"{ca}.key", "-CAcreateserial", "-extfile", extension,
                 "-out", folder / f"{name}.pem")  # fmt: skip
    _openssl("pkey", "-in", folder / "client.key", "-aes256", "-passout", f"pass:{KEY_PASSWORD}",
             "-out", folder / "client-encrypted.key")  # fmt: skip
    (folder / "keystore.pem").write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())


def _openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
