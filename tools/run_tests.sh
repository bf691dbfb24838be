#!/bin/sh
# Everything that is checked, with the tools of the environment that is active; goes on after a failure.
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" HF_HUB_DISABLE_TELEMETRY="${HF_HUB_DISABLE_TELEMETRY:-1}" MPLBACKEND="${MPLBACKEND:-Agg}"
failed=""

check() { # a name, a command
	name=$1
	shift
	echo "$name: $*"
	"$@" || failed="$failed $name"
}

notebooks() { # one notebook a core, each on one thread
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 nbdev_test --timing
}

check lint ruff check
check types mypy
check imports lint-imports
check notebooks notebooks
check sync python tools/check_sync.py
if [ -n "$failed" ]; then echo "Failed before pytest:$failed" >&2; fi
pytest_files() { # two files at a time, each on one thread; those that take longest begin
	# shellcheck disable=SC2046 # no name has a space
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile \
		--no-loadscope-reorder --durations 15 tests/test_tutorials.py tests/test_site.py \
		$(ls tests/test_*.py | grep -v -e test_tutorials -e test_site)
}

check pytest pytest_files
[ -z "$failed" ]
