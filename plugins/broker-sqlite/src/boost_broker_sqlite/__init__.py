"""The embedded broker of boost: a queue in one SQLite file, without a server."""
