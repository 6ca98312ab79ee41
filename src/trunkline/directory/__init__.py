"""The phone book: publish metadata under a name, find others by theirs. Needs a store, no backend and no GPU."""

from trunkline.directory.directory import Directory as Directory
from trunkline.directory.publication import Publication as Publication
from trunkline.directory.session import Session as Session
