"""Logs in to Amazon MSK by IAM: a token provider around AWS's own signer.

pip install aws-msk-iam-sasl-signer-python
"""

from __future__ import annotations

import os
import time

from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

from rft.config import BrokerConfig
from rft.log.tokens import Token


def token(broker: BrokerConfig) -> Token:
    """Return a token for the AWS identity that this process has: a role, a profile or keys in the environment."""
    region = os.environ["AWS_REGION"]
    value, expires_at_ms = MSKAuthTokenProvider.generate_auth_token(region)
    return Token(value, lifetime_s=expires_at_ms / 1000 - time.time(), principal=f"the AWS identity in {region}")
