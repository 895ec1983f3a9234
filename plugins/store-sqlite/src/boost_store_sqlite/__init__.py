"""The embedded store of boost: results and other keyed state in one SQLite file, without a server."""
