from .dialects import Chat as Chat
from .dialects import parse_chat as parse_chat
from .doctor import ChatDiagnosis as ChatDiagnosis
from .doctor import ChatFinding as ChatFinding
from .doctor import examine_chats as examine_chats
from .loading import load_chats as load_chats
from .loading import stream_chats as stream_chats
from .media import read_media as read_media
