"""Serves the policy to agents over HTTP: OpenAI's and Anthropic's protocols over sessions that keep exact tokens."""
