"""``rft acls``: prints what each role must be allowed on a cluster with an authorizer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infra.commands.common import ClusterName, ConfigPath, EmitFormat, load


class Login(StrEnum):
    """How the users of Strimzi log in."""

    scram = "scram-sha-512"
    tls = "tls"


def acls(
    context: typer.Context,
    config: ConfigPath,
    emit: Annotated[EmitFormat, typer.Option("--emit", help="Format of the definitions.")] = EmitFormat.shell,
    principal_prefix: Annotated[
        str, typer.Option("--principal-prefix", help="Followed by a role's name, its principal.")
    ] = "User:rft-",
    roles: Annotated[
        list[str] | None, typer.Option("--role", metavar="ROLE", help="Only this one. May be repeated. By default all.")
    ] = None,
    cluster: ClusterName = "my-cluster",
    login: Annotated[Login, typer.Option("--login", help="With strimzi: how the users log in.")] = Login.scram,
) -> None:
    """Print the ACLs that each role needs under this configuration, and no more. Asks no broker.

    Without [rewarders], rewarder stands for producers of external rewards. Besides the roles there are reader (commands
    that only look, such as audit, report and doctor) and operator (rft run with all roles in one, and commands that
    write).

    Example: rft acls run.toml --emit shell --role explorer --principal-prefix User:team-a-
    """
    loaded = load(config, context)
    from infra.definitions.base import acl_rules
    from infra.definitions.formats import make_target, open_format
    from rft.errors import ConfigError
    from rft.log.access import access_by_role

    known = list(access_by_role(loaded))
    unknown = [role for role in roles or () if role not in known]
    if unknown:
        raise ConfigError(f"--role {unknown[0]}: there are {', '.join(known)}")
    rules = acl_rules(loaded, roles or known, principal_prefix)
    print(open_format(emit.value).acls(rules, make_target(loaded, cluster, login.value)), end="")
