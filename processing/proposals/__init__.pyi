from .clusters import ClusterProposer as ClusterProposer
from .clusters import TokenClusters as TokenClusters
from .marks import Mark as Mark
from .protocol import ProposalVideo as ProposalVideo
from .protocol import RegionProposals as RegionProposals
from .protocol import RegionProposer as RegionProposer
