"""Checks whether a broker answers as configured, and names the cause if it does not.

kafka-python retries everything and then says "Unable to bootstrap", whether the password is wrong or the host does
not exist. So before each client starts, we make one connection of our own and go as far as being logged in: TCP, TLS,
ApiVersions, SASL. That costs a few milliseconds, and whatever fails is named.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Sequence

from kafka.net.sasl import get_sasl_mechanism

from rft.config import BrokerConfig
from rft.errors import BrokerError, OutageError
from rft.log import wire
from rft.log.security import sasl_options, ssl_context
from rft.log.tokens import token_source
from rft.log.wire import NotKafkaError
from rft.retry import Backoff, Deadline, any_of, retry

_UNSUPPORTED_MECHANISM, _ILLEGAL_SASL_STATE = 33, 34
_BACKOFF = Backoff(0.25)
_HOSTNAME_MISMATCH = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


class _NotYetError(Exception):
    """A failure that may pass: the broker is starting, the network is coming up."""


def probe(broker: BrokerConfig, servers: Sequence[str]) -> None:
    """Return as soon as one of ``servers`` (``host:port``) lets us in.

    A fault that may pass (refused, unknown host, no answer) is retried until ``connect_timeout_s``; one that cannot
    (password, certificate, protocol) fails at once. Raises BrokerError with the cause and what to do, an OutageError if
    the fault may pass.
    """
    context = ssl_context(broker)
    deadline = Deadline(broker.connect_timeout_s)
    try:
        retry(
            lambda: _log_in_to_any(broker, context, servers, deadline),
            retryable=any_of(_NotYetError),
            backoff=_BACKOFF,
            deadline=deadline,
        )
    except _NotYetError as error:
        raise OutageError(f"{error} (tried for {broker.connect_timeout_s:g} s)") from error


def _log_in_to_any(
    broker: BrokerConfig, context: ssl.SSLContext | None, servers: Sequence[str], deadline: Deadline
) -> None:
    """Raise BrokerError if a server refuses us for good and no other lets us in, else _NotYetError with all causes."""
    causes: list[str] = []
    refusal: BrokerError | None = None
    for server in servers:
        timeout = min(max(deadline.remaining(), 0.1), broker.connect_timeout_s / len(servers))
        try:
            _log_in(broker, context, server, timeout)
            return
        except _NotYetError as error:
            causes.append(f"broker {server}: {error}")
        except BrokerError as error:
            refusal = error
    raise refusal or _NotYetError("; ".join(causes))


def _log_in(broker: BrokerConfig, context: ssl.SSLContext | None, server: str, timeout: float) -> None:
    host, port = _split(server)
    with _connect(host, port, timeout) as plain:
        if context is None:
            advertised = _speak_kafka(broker, server, plain)
        else:
            with _handshake(context, plain, host, server) as secured:
                advertised = _speak_kafka(broker, server, secured)
    if advertised and (host, port) not in advertised:
        _reach_any(server, advertised, timeout)


def _reach_any(server: str, advertised: Sequence[tuple[str, int]], timeout: float) -> None:
    """Check an advertised address: clients talk to those from now on, not to the one that they started from."""
    causes = []
    for host, port in advertised:
        try:
            _connect(host, port, timeout / len(advertised)).close()
            return
        except _NotYetError as error:
            causes.append(f"{host}:{port}: {error}")
    raise _NotYetError(
        "it answers, but tells clients to use other addresses, and none can be reached from here "
        f"({'; '.join(causes)}). Set the broker's advertised.listeners to an address that its clients can reach"
    )


def _split(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        raise BrokerError(f"broker.bootstrap_servers: {server!r} is not host:port")
    return host.strip("[]"), int(port)


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout)
    except socket.gaierror as error:
        raise _NotYetError(f"unknown host {host}: {error.strerror}. Check broker.bootstrap_servers") from error
    except ConnectionRefusedError as error:
        raise _NotYetError("connection refused: nothing listens there. Start the broker, or check the port") from error
    except TimeoutError as error:
        raise _NotYetError("no answer to a TCP connection. Check host, port and firewall") from error
    except OSError as error:
        raise _NotYetError(f"cannot connect: {error.strerror or error}") from error


def _handshake(context: ssl.SSLContext, plain: socket.socket, host: str, server: str) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _HOSTNAME_MISMATCH:
            raise BrokerError(
                f"broker {server}: its certificate is not for {host} ({error.verify_message}). Use the name it is "
                "for, or set broker.ssl_check_hostname = false"
            ) from error
        raise BrokerError(
            f"broker {server}: its certificate is not signed by a CA we know ({error.verify_message}). "
            "Set broker.ssl_cafile to the PEM file of the CA that signed it"
        ) from error
    except TimeoutError as error:
        raise _NotYetError(f"no answer to a TLS handshake. {_PERHAPS_NO_TLS}") from error
    except (ssl.SSLError, ConnectionError) as error:
        raise BrokerError(f"broker {server}: the TLS handshake failed ({_reason(error)}). {_PERHAPS_NO_TLS}") from error


_PERHAPS_NO_TLS = "The listener may speak no TLS: then set broker.security_protocol to PLAINTEXT or SASL_PLAINTEXT"
_PERHAPS_TLS = "The listener may speak TLS: then set broker.security_protocol to SSL or SASL_SSL"


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).replace("_", " ").lower()


def _speak_kafka(broker: BrokerConfig, server: str, sock: socket.socket) -> list[tuple[str, int]]:
    """Send ApiVersions, log in by SASL (or find that no login is asked for), and ask for the cluster's brokers.

    Returns the (host, port) that each broker advertises.
    """
    try:
        wire.api_versions(sock)
    except TimeoutError as error:
        raise _NotYetError("connected, but there is no answer to a Kafka request. Is it a Kafka broker?") from error
    except ssl.SSLError as error:
        raise BrokerError(
            f"broker {server}: it ended the TLS session ({_reason(error)}). {_certificate(broker)}"
        ) from error
    except (ConnectionError, NotKafkaError) as error:
        hint = _PERHAPS_TLS if "SSL" not in broker.security_protocol else "Is it a Kafka broker?"
        raise BrokerError(f"broker {server}: no Kafka answer ({_closed_or(error)}). {hint}") from error
    try:
        if broker.security_protocol.startswith("SASL"):
            _authenticate(broker, server, sock)
        else:
            _expect_no_sasl(broker, server, sock)
        return wire.advertised_brokers(sock)
    except TimeoutError as error:
        raise _NotYetError("connected, but there is no answer to the login") from error
    except (OSError, NotKafkaError, struct.error) as error:
        raise BrokerError(f"broker {server}: the login failed ({error})") from error


def _certificate(broker: BrokerConfig) -> str:
    if broker.ssl_certfile is None:
        return "It may ask for a client certificate: set broker.ssl_certfile and broker.ssl_keyfile"
    return (
        f"It does not accept the client certificate {broker.ssl_certfile}: take one that is signed by a CA that the "
        "broker trusts, and that has not expired (broker.ssl_certfile)"
    )


def _closed_or(error: Exception) -> str:
    return str(error) if isinstance(error, NotKafkaError) else "it closed the connection"


def _authenticate(broker: BrokerConfig, server: str, sock: socket.socket) -> None:
    name = broker.sasl_mechanism
    code, offered = wire.sasl_handshake(sock, name)
    if code == _ILLEGAL_SASL_STATE:
        protocol = broker.security_protocol.removeprefix("SASL_")
        raise BrokerError(
            f"broker {server}: this listener takes no SASL logins. Set broker.security_protocol = '{protocol}'"
        )
    if code != 0:
        raise BrokerError(
            f"broker {server}: it does not offer {name} but {', '.join(offered) or 'no mechanism'}. "
            "Set broker.sasl_mechanism"
        )
    refused = _ask_for_token(broker) if name == "OAUTHBEARER" else _wrong_password(broker)
    mechanism = get_sasl_mechanism(name)(security_protocol="SASL_SSL", **sasl_options(broker))
    while not mechanism.is_done():
        code, message, answer = wire.sasl_authenticate(sock, mechanism.auth_bytes())
        if code != 0:
            raise BrokerError(f"broker {server}: {refused(f' ({message})' if message else '')}")
        mechanism.receive(answer)


def _wrong_password(broker: BrokerConfig) -> Callable[[str], str]:
    """Return what makes the error of a refused login, given the broker's answer."""
    return lambda answer: (
        f"login of user {broker.sasl_username!r} with {broker.sasl_mechanism} failed: wrong user or password{answer}. "
        "Check broker.sasl_username and RFT_BROKER__SASL_PASSWORD"
    )


def _ask_for_token(broker: BrokerConfig) -> Callable[[str], str]:
    """Make sure that there is a token. Return what makes the error if it is refused, given the broker's answer."""
    try:
        token = token_source(broker).token()
    except OutageError as error:
        raise _NotYetError(str(error)) from error
    whose = f" of {token.principal}" if token.principal else ""
    return lambda answer: (
        f"login with OAUTHBEARER failed: the broker does not accept the token{whose} from broker.token_provider = "
        f"'{broker.token_provider}'{answer}. Check issuer, audience and scope of the token, and the clocks"
    )


def _expect_no_sasl(broker: BrokerConfig, server: str, sock: socket.socket) -> None:
    """Raise BrokerError if the listener wants a login.

    A SASL listener answers ApiVersions to anyone and then hangs up. Only its offer of a login tells it apart.
    """
    name = broker.sasl_mechanism
    code, offered = wire.sasl_handshake(sock, name)
    # A PLAINTEXT listener of Apache Kafka answers ILLEGAL_SASL_STATE; Tansu "unsupported", echoing the name.
    if code == 0 or (code == _UNSUPPORTED_MECHANISM and offered and name not in offered):
        raise BrokerError(
            f"broker {server}: the listener asks for a login ({', '.join(offered)}). Set broker.security_protocol = "
            f"'SASL_{broker.security_protocol}', broker.sasl_mechanism, sasl_username, "
            "sasl_password"
        )
