"""Models behind servers that speak OpenAI's chat API: what goes over the wire, when it came, what each server means.

sse.py        bytes -> events
chunks.py     events -> what they tell of a reply
wire.py       the socket: requests, reads and when they were; the only place that knows the key
dialects.py   the one table of servers: how each is asked for what, and what it cannot be asked for
recognise.py  which server this is
settings.py   a sampling -> the fields of a request
arrivals.py   reads and counts -> ticks
session.py    the path of a turn
tokens.py     counting with a named tokenizer, where a server does not count
verify.py     whether the server does what it was asked
backend.py    all of it, as a backend
"""
