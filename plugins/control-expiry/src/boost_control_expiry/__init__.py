"""Control ``expiry`` of boost: a message that wasn't started within its ``max_age`` is not run."""
