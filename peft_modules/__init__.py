"""Adaptation methods: each patches an upstream, trains little, and is proven to be live."""

import emopeft.upstream  # noqa: F401  (its guard must run before peft imports torchaudio)
