"""Two peers that find each other: the Signaller protocol, its clients, and a server."""

from simopen._lazy import loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simopen.signalling.via import connect

__all__ = ["connect"]

if not TYPE_CHECKING:
    __getattr__ = loader(globals(), {"connect": "via"})
