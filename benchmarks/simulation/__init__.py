"""A discrete-event internet for two peers that punch: no sockets, no threads, no bytes, no clock but its own."""
