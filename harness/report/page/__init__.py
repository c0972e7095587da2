"""A run, or several, as one self-contained HTML page: nothing on it is fetched, and nothing a model said can act.

`write.py` fills `page.html.j2`; `tables.py` and `facts.py` make what stands on it, `packed.py` the transcripts, which
the page unpacks conversation by conversation. The scripts are small files with a purpose each; a page has them joined.
"""
