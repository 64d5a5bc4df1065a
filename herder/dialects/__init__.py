"""Other people's APIs, one file each, translated onto the same jobs: the same keys, fees, bids, queue and ledger.

`asking` reads what they send, `attended` buys the answer and stays with it, `chunks` tells it piece by piece.
"""
