"""RabbitMQ as a broker of boost."""
