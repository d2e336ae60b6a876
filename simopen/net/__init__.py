"""Sockets and what the kernel knows of them: opening, closing, routes, its table of connections, local ports."""
