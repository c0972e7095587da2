"""What the columns of a table mean, in the same words on every kind of report."""

from harness.analysis.stability import SPREAD_LIMIT

THROUGHPUT = (
    "Throughput: tokens and turns per second of busy time, which is what the answered turns of a launch cover together;"
    " bookkeeping between steps is not counted. TTFT and TPOT are p50 of a turn that shares the machine with others."
)
STABILITY = (
    "Stability: how much the very same work (prompt, number of ids) differs in time, as standard deviations of "
    "logarithms: from launch to launch, and from turn to turn within one. Unstable is: more than "
    f"{100 * SPREAD_LIMIT:.0f} % from turn to turn, a drift, throttled clocks, other processes, or a warm-up that "
    "never settled."
)
PHASES = (
    "Phases: p50, and the share of the time of all turns together; the shares add up to the whole. Prefill ends with "
    "the first id: it holds the first sample and one sync."
)
GROWTH = (
    "Growth: slopes of least squares within conversations, each by itself, with 95 % intervals over launches, or, with "
    "one, of this launch only."
)
LIMITS = (
    "Largest context: prompt and reply of the largest turn that was answered, and the smallest prompt beyond it that "
    "was not; the limit lies between them. Memory is that of the largest turn answered."
)
COLD_START = (
    "Cold start, which is in no other figure: load = imports + weights + first forward + compile; first turn is the "
    "end to end time of the first one, warm-up or not."
)
RESPONSE_SPEED = (
    "What a setting costs: choosing a token is the time per token beyond greedy's after the same prompt, over the "
    "steps that both made; TPOT and end to end are of a typical turn. 95 % intervals over launches, none with a single "
    "one; tokens and cut off over conversations. A value is averaged over the same values of everything else."
)
RESPONSE_BEHAVIOUR = (
    "What a setting changes: repetition, distinct-n and loops within a reply; how often repeats of a turn give the "
    "same answer to the same prompt; checks; how many replies differ from greedy's to the same prompt, and from which "
    "id on. 95 % intervals over conversations."
)
LENGTH = (
    "Where the length runs out: the first turn at which max_length or the context cuts a reply off, refuses a prompt, "
    "or has messages dropped; how many tokens were left for the reply; how many turns were never reached."
)
MEMORY = (
    "Memory: the most over all turns. Energy and shares of what the machine can do: p50 of a turn. Load and first turn "
    "are cold start, and in no other figure."
)
BY_TURN = "p50 of the turns at each position. Prefill ends with the first id: it holds the first sample and one sync."
BY_CONVERSATION = "Times are p50 of a turn."
