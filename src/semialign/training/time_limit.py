"""How many steps fit into the minutes that were asked for."""

FIRST = 1000  # steps assumed before the first has been timed
LONGEST = 20  # steps between two estimates, at most


class TimeLimit:
    """Turns a stage's seconds into a number of steps, estimated anew as it goes on.

    An estimate follows the pace since the last one: the first steps are slow, and other work may come and go. When the
    next one is due depends on the last estimate alone, so that processes which share it agree.
    """

    def __init__(self, seconds: float, *, step: int = 0, spent: float = 0.0) -> None:
        self.seconds = seconds
        self.last = (step, spent)
        self.steps = step + self._fitting(spent / step, spent) if step else FIRST
        self.next = step + 1
        self.share = spent / seconds if step else 0.0

    def advance(self, step: int) -> None:
        """Move ``share``, how much of the stage's time is over, on to where it is after ``step`` steps.

        The share of the steps is another: where steps become slower, fewer are left, and it leaps.
        """
        self.share += (1 - self.share) / max(self.steps - step + 1, 1)

    def due(self, step: int) -> bool:
        """Whether ``step`` steps done are enough for a new estimate, or all that were planned."""
        return step >= min(self.next, self.steps)

    def estimate(self, step: int, spent: float) -> int:
        """Return the stage's number of steps, ``step`` of which took ``spent`` seconds."""
        before, until = self.last
        self.last = (step, spent)
        fitting = self._fitting((spent - until) / max(step - before, 1), spent)
        # A step that was not planned as the last one is followed by another, which then is.
        return step + (fitting if step >= self.steps else max(fitting, 1))

    def plan(self, step: int, steps: int, spent: float) -> None:
        """Take ``steps`` as the stage's number from ``step`` on, at ``spent`` seconds."""
        self.steps, self.share = steps, min(1.0, spent / self.seconds)
        self.next = step + max(1, min(LONGEST, (steps - step) // 10))

    def _fitting(self, pace: float, spent: float) -> int:
        return round(max(0.0, self.seconds - spent) / max(pace, 1e-6))
