"""Broker of boost on NATS JetStream, written in coroutines."""
