"""Queues of boost on Apache Kafka."""
