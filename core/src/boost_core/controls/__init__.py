"""Controls that core brings: retry, timeout, result. They are treated like any other."""
