"""What can go wrong between the gateway and a model server."""


class UpstreamFailed(Exception):
    """A model server was not reached, ended the connection, or answered what is no HTTP."""


class Unreachable(UpstreamFailed):
    """There was no connection to be had, in time or at all."""


class Disconnected(UpstreamFailed):
    """The connection ended before the answer did."""


class NotHttp(UpstreamFailed):
    """What came is no answer of HTTP/1.1, or one of a kind that was not asked for."""
