"""Bytes by TCP, without a store: frames, a server and a client of them, and NIXL's messages. Knows no agent."""
