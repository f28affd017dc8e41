r"""Chats about videos and pictures from files: JSON lines, JSON lists and parquet, in both common dialects.

    >>> from processing.chats import load_chats, parse_chat
    >>> row = {"video": "kitchen.mp4", "conversations": [{"from": "human", "value": "<image>\nHow many chairs?"},
    ...                                                  {"from": "gpt", "value": "Four."}]}
    >>> parse_chat(row).messages[0]["content"]
    [{'type': 'video'}, {'type': 'text', 'text': 'How many chairs?'}]

`load_chats` checks every row of files and keeps them in a memory-mapped table of `datasets`; `stream_chats` reads them
while they are used. `read_media` opens what a row names. `examine_chats` is the doctor of such files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
