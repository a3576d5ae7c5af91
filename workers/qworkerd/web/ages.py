"""How old an answer may be that viewers share (seconds).

A region of a page is refreshed as often as its youngest part. An answer whose life is shorter than the time between two
refreshes would be made for each viewer.
"""

#: What an autoscaler asks for.
LOAD = 1.0
#: What moves while one looks at it: workers, a job, an operation.
LIVE = 2.0
#: Queues and lists.
CURRENT = 5.0
#: What is counted over a period.
COUNTED = 15.0
#: Names that are offered as one types.
NAMES = 30.0
