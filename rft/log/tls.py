"""Makes TLS settings from PEM files. Broker, schema registry and token endpoint share the names of their settings."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import SecretStr

from rft.errors import RftError


def make_tls(
    section: str,
    *,
    cafile: Path | None,
    certfile: Path | None = None,
    keyfile: Path | None = None,
    password: SecretStr | None = None,
    error: type[RftError],
) -> ssl.SSLContext:
    """Return TLS settings that verify the server and, with a certificate, let the server verify us.

    Args:
        section: Section of the settings, such as ``broker``. Errors name ``broker.ssl_cafile`` then.
        cafile: PEM file of CAs. By default the system's.
        certfile: PEM certificate of ours.
        keyfile: Its key. By default it is in ``certfile``.
        password: Password of an encrypted key.
        error: Class of what is raised if a file cannot be used.
    """
    for key, path in (("ssl_cafile", cafile), ("ssl_certfile", certfile), ("ssl_keyfile", keyfile)):
        if path is not None and not path.is_file():
            raise error(f"{section}.{key}: there is no file {path}")
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as cause:
        raise error(f"{section}.ssl_cafile: {cafile} is no PEM file of certificates: {cause}") from cause
    if certfile is not None:
        _load_certificate(context, section, certfile, keyfile, password, error)
    return context


def _load_certificate(
    context: ssl.SSLContext,
    section: str,
    certfile: Path,
    keyfile: Path | None,
    password: SecretStr | None,
    error: type[RftError],
) -> None:
    encrypted = False

    def ask() -> str:
        # Without this function, OpenSSL asks at the terminal.
        nonlocal encrypted
        encrypted = True
        return password.get_secret_value() if password else ""

    try:
        context.load_cert_chain(certfile, keyfile, ask)
    except (OSError, ssl.SSLError) as cause:
        if encrypted:
            fault = "does not decrypt" if password else "is needed for"
            raise error(
                f"{section}.ssl_password: the password {fault} the key in {keyfile or certfile}. "
                f"Set RFT_{section.upper()}__SSL_PASSWORD"
            ) from cause
        raise error(
            f"{section}.ssl_certfile, {section}.ssl_keyfile: {certfile} and {keyfile or certfile} are no matching "
            f"certificate and key in PEM: {cause}"
        ) from cause
