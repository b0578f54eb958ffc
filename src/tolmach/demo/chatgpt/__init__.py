"""chatgpt.com's web conversation, played: `web` is the service, `sentinel` checks its proof of work."""
