"""Who may ask the gateway, and how much: keys of callers and their limits."""
