"""How many positions are sampled at a time, and on how many threads: by the time that they took before."""

from __future__ import annotations

from dataclasses import dataclass, field

CHUNK, CHUNK_SECONDS = 1024, 0.2  # positions between two looks at Ctrl-C, and their seconds, at most
MEASURABLE = 1e-3  # seconds: shorter work tells nothing
THREADS_PAY = 5e-3  # seconds of work below which threads may cost more than they save, where cores are busy
_GROWTH = 8  # of what is tried until its time can be measured
_HOPE = 0.95  # what was slower is held to be a bit less slow after each chunk, so that it is tried again


@dataclass
class Pace:
    """What was measured of some rows: seconds for a position of a row, by the number of threads.

    One thread is measured first, then several, and whichever was faster goes on. What is sampled does not depend on it.

    Example:
        >>> pace = Pace()
        >>> pace.plan(num_rows=16, left=500, most=2)
        (1, 1)
        >>> pace.learn(num_rows=16, threads=1, count=1, seconds=0.4)
        >>> pace.learn(num_rows=16, threads=1, count=8, seconds=0.008)
        >>> pace.plan(num_rows=16, left=500, most=2)
        (2, 400)
        >>> pace.learn(num_rows=16, threads=2, count=400, seconds=0.6)
        >>> pace.plan(num_rows=16, left=100, most=2)
        (1, 100)
    """

    seconds: dict[int, float] = field(default_factory=dict)
    trial: int = 1
    short: int = 1  # positions that surely take less than a chunk may

    def plan(self, num_rows: int, left: int, most: int) -> tuple[int, int]:
        """Return on how many threads, `most` or 1, and how many of the positions left to sample next."""
        alone = self.seconds.get(1)
        if alone is None:
            return 1, min(left, self.trial if most > 1 else max(self.trial, self.short))
        together = self.seconds.get(most, alone / most)
        threads = most if together < alone and alone * num_rows * left > THREADS_PAY else 1
        seconds = num_rows * (alone if threads == 1 else together)
        return threads, min(left, CHUNK, max(1, int(CHUNK_SECONDS / seconds)))

    def learn(self, num_rows: int, threads: int, count: int, seconds: float) -> None:
        """Keep how long `count` positions took."""
        if self.trial > 1 and seconds > MEASURABLE:  # the first call pays for what is loaded and compiled
            self.seconds[threads] = seconds / (count * num_rows)
        self.trial, self.short = (
            min(self.trial * _GROWTH, CHUNK),
            min(int(count * CHUNK_SECONDS / max(seconds, 1e-9)), CHUNK),
        )
        if threads == 1:
            self.seconds.update({n: pace * _HOPE for n, pace in self.seconds.items() if n > 1})
