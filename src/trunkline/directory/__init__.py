"""The phone book: publish metadata under a name, find others by theirs, watch who is there.

Needs a store, no backend and no GPU.
"""

from trunkline.directory.directory import Directory as Directory
from trunkline.directory.publication import Publication as Publication
from trunkline.directory.publisher import Publisher as Publisher
from trunkline.directory.view import AgentListing as AgentListing
from trunkline.directory.view import DirectoryView as DirectoryView
from trunkline.directory.watch import DirectoryWatch as DirectoryWatch
