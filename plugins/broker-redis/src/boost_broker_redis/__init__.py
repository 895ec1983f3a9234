"""Brokers ``redis`` and ``redis-stream`` of boost: queues on a Redis or Valkey server."""
