from __future__ import annotations

import signal

from hypothesis import settings

# How long an example takes says nothing on a busy machine.
settings.register_profile("trunkline", deadline=None)
settings.load_profile("trunkline")

# A shell that starts the tests in the background has them ignore SIGINT, and the commands they start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
