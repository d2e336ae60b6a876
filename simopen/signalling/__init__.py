"""Two peers that find each other: the Signaller protocol, its clients, and a server."""
