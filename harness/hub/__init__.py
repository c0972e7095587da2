"""The Hugging Face Hub and its local cache: finding models, and bringing them here at a commit that is known.

What comes out is a directory. Nothing after this room talks to the Hub, so no download is ever part of a load, and
every launch of a run reads the very same files.
"""
