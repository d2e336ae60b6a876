"""Many TCP connections over one stream."""
