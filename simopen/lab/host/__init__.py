"""Hosts and routers as network namespaces, and the links to them."""
