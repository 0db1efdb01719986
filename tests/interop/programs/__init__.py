"""Programs that are a stack's server or client, each run as a process of its own."""
