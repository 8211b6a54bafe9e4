"""Attacks on our own training: evidence about a promise, and no proof of it.

`bounds` turns guesses into lower bounds on epsilon; `game` attacks clipping, sampling and noise many times
over; `canaries` and `updates` attack one training run; `membership` asks for records, `copying` for samples
that repeat them. `run` does all of it to one model and one plan, and `report` writes down what came out.

The package stands above `pipeline` and not inside `privacy`, because what it attacks is training as it is,
with a model and records that passed the checks of any run. No attack is a switch in the code that it attacks:
the audit calls the same functions as any run and is shown what they release, after the noise.
"""
