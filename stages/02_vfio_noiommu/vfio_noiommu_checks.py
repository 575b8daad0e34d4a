from common import checks
CLAIMS=(checks.LIVE_UPDATE,)
