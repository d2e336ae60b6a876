"""TLS 1.3 over a punched socket, both ends proven to have one shared key, and the stream that applications get."""
