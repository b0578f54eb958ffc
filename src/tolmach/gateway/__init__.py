"""The gateway: any provider behind the OpenAI and Anthropic APIs."""
