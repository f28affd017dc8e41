from .arguments import DataArguments as DataArguments
from .arguments import ModelArguments as ModelArguments
from .arguments import build_parser as build_parser
from .arguments import read_recipe as read_recipe
from .data import room_options as room_options
from .plan import dry_run as dry_run
from .run import run_recipe as run_recipe
from .run import train as train
