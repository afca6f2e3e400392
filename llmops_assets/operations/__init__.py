"""What somebody may ask of the platform, one function each: `(wiring, actor, input) -> result`.

An operation checks, authorises, and writes what is desired together with its audit line. The command, the API and the
sensors call these and nothing below; none of them decides anything itself.
"""
