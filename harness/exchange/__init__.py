"""The harness' data in other people's hands: tables in their formats, results for the Hub, sinks of trackers.

Nothing here is needed for a run or a report, and nothing here is called while one is measured.
"""
