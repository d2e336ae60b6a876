"""Tickets: what a peer must know to punch, as one word; and where this side leaves its own."""
