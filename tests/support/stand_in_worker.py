"""The process of one run of a benchmark in which training and prediction are stood in for.

As ``stand_in_worker.py bench FILE OUTPUT`` the whole benchmark, two runs at a time, each in such a process.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
WORKER = (sys.executable, str(Path(__file__).resolve()))


def work() -> int:
    from stand_in_bench import Clock, Stand

    import semialign.evaluation.benchmark_machine as machine
    import semialign.evaluation.benchmark_run as run
    import semialign.inference.predictor as predictor
    import semialign.training.train as training
    from semialign.evaluation.benchmark_worker import main

    stand = Stand()
    folder = Path(os.environ["STAND_IN"])
    (folder / f"{os.getpid()}.pid").touch()

    def act(options: dict[str, Any]) -> None:
        if (folder / "die").exists() and options["method"] == "mean-teacher":
            os.kill(os.getpid(), signal.SIGKILL)
        options["progress"]("train", 1, 10)
        time.sleep(float((folder / "sleep").read_text()) if (folder / "sleep").exists() else 0)

    stand.on_train = act
    training.train, predictor.predict = stand.train, stand.predict  # type: ignore[assignment]
    run.count_parameters = lambda folder, accelerator: 1234  # type: ignore[assignment]
    machine.time = Clock()  # type: ignore[assignment]
    return main()


def whole(file: str, output: str) -> int:
    from semialign.evaluation import benchmark_jobs
    from semialign.evaluation.benchmark import bench

    benchmark_jobs.WORKER = WORKER  # type: ignore[assignment]
    bench(Path(file), output=Path(output), accelerator="cpu", jobs=2, tell=lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(whole(*sys.argv[2:]) if sys.argv[1:2] == ["bench"] else work())
