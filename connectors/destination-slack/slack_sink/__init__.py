"""A local server that speaks Slack's Web API: real state, authentication, errors and rate limits."""
