"""Store ``redis`` of boost: results and other keyed state on a Redis or Valkey server."""
